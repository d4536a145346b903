// Shared memory as kernels see it: Shared<T>, a pointer that checks every access.  cuda_emulator.h
// includes this file.
#pragma once

#include "cuda_emulator.h"

namespace cuda_emulator {

inline void Machine::access(const SharedArray& array, std::ptrdiff_t offset, size_t bytes,
                            size_t alignment, Access kind) {
  const auto element = [&] {
    return "'" + std::string(array.name) + "' at byte " + std::to_string(offset) + " (element " +
           std::to_string(offset / static_cast<std::ptrdiff_t>(bytes)) + " of " +
           std::to_string(array.bytes / bytes) + ")";
  };
  const char* const verb = kind == kRead ? "reads" : kind == kWrite ? "writes" : "updates";
  if (offset < 0 || static_cast<size_t>(offset) + bytes > array.bytes) {
    fail_here("shared access out of bounds: " + std::string(verb) + " " + element());
  }
  if (static_cast<size_t>(offset) % alignment != 0) {
    fail_here("misaligned shared access: " + std::string(verb) + " " + element());
  }
  for (size_t i = 0; i < bytes; ++i) {
    Shadow& byte = shadow[array.begin + static_cast<size_t>(offset) + i];
    const bool initialized = byte.write_time > block_begin;
    if (kind != kWrite && !initialized) {
      fail_here("uninitialized shared read: " + std::string(verb) + " " + element());
    }
    const auto race = [&](unsigned other, const char* what) {
      fail_here("shared race: " + std::string(verb) + " " + element() + ", which " +
                thread_text(other) + " " + what + " with no barrier between");
    };
    const bool both_atomic = kind == kAtomic && byte.atomic;
    if (initialized && !both_atomic && !ordered(byte.writer, byte.write_time)) {
      race(byte.writer, "wrote");
    }
    if (kind == kRead) {
      const int slot =
          ordered(byte.reader[0], byte.read_time[0]) || byte.reader[0] == current ? 0 : 1;
      byte.reader[slot] = static_cast<uint16_t>(current);
      byte.read_time[slot] = now;
      continue;
    }
    for (int k = 0; k < 2; ++k) {
      if (!ordered(byte.reader[k], byte.read_time[k])) race(byte.reader[k], "read");
    }
    byte.writer = static_cast<uint16_t>(current);
    byte.write_time = now;
    byte.atomic = kind == kAtomic;
  }
}

template <typename T>
class Shared;

// What s[i] is: read it into a named type or assign to it.
template <typename T>
class SharedElement {
 public:
  using Value = std::remove_const_t<T>;
  explicit SharedElement(const Shared<T>& pointer) : pointer_(pointer) {}
  // Only a temporary converts, so that `auto x = s[i]`, which would read later, does not compile.
  operator Value() && { return pointer_.read(); }  // NOLINT
  void operator=(const Value& value) && { pointer_.write(value); }
  void operator=(SharedElement&& other) && { pointer_.write(other.pointer_.read()); }
  Shared<T> operator&() && { return pointer_; }
  Value operator++() && {
    return update([](Value x) { return static_cast<Value>(x + 1); });
  }
  Value operator--() && {
    return update([](Value x) { return static_cast<Value>(x - 1); });
  }
  void operator++(int) && {
    update([](Value x) { return static_cast<Value>(x + 1); });
  }
  void operator--(int) && {
    update([](Value x) { return static_cast<Value>(x - 1); });
  }
#define AMSTEL_UPDATE(op)                                               \
  template <typename U>                                                 \
  Value operator op## = (U && other) && {                               \
    const auto y = static_cast<Plain<U>>(std::forward<U>(other));       \
    return update([&](Value x) { return static_cast<Value>(x op y); }); \
  }
  AMSTEL_UPDATE(+)
  AMSTEL_UPDATE(-)
  AMSTEL_UPDATE(*)
  AMSTEL_UPDATE(/)
  AMSTEL_UPDATE(%)
  AMSTEL_UPDATE(&)
  AMSTEL_UPDATE(|)
  AMSTEL_UPDATE(^)
#undef AMSTEL_UPDATE

 private:
  template <typename U>
  static std::type_identity<U> plain(const U&);
  template <typename U>
  static std::type_identity<typename SharedElement<U>::Value> plain(const SharedElement<U>&);
  template <typename U>
  using Plain = typename decltype(plain(std::declval<U>()))::type;

  template <typename Function>
  Value update(Function function) {
    const Value value = function(pointer_.read());
    pointer_.write(value);
    return value;
  }
  Shared<T> pointer_;
};

// A pointer into shared memory that checks every access.
template <typename T>
class Shared {
 public:
  using Value = std::remove_const_t<T>;
  explicit Shared(SharedArray& array) : array_(&array) { machine.place(array); }
  Shared(const SharedArray* array, std::ptrdiff_t offset) : array_(array), offset_(offset) {}
  operator Shared<const T>() const  // NOLINT
    requires(!std::is_const_v<T>)
  {
    return {array_, offset_};
  }

  SharedElement<T> operator[](std::ptrdiff_t i) const { return SharedElement<T>(*this + i); }
  SharedElement<T> operator*() const { return SharedElement<T>(*this); }
  Shared operator+(std::ptrdiff_t i) const { return {array_, offset_ + i * kSize}; }
  Shared operator-(std::ptrdiff_t i) const { return *this + -i; }
  Shared& operator+=(std::ptrdiff_t i) { return *this = *this + i; }
  Shared& operator-=(std::ptrdiff_t i) { return *this = *this - i; }
  std::ptrdiff_t operator-(const Shared& other) const { return (offset_ - other.offset_) / kSize; }
  template <typename U>
  Shared<U> cast() const {
    return {array_, offset_};
  }

  Value read() const {
    check(Machine::kRead);
    Value value;
    std::memcpy(static_cast<void*>(&value), address(), sizeof(T));
    return value;
  }
  void write(const Value& value) const {
    static_assert(!std::is_const_v<T>);
    check(Machine::kWrite);
    std::memcpy(address(), &value, sizeof(T));
  }
  template <typename Function>
  Value update_atomically(Function function) const {
    check(Machine::kAtomic);
    Value old, value;
    std::memcpy(static_cast<void*>(&old), address(), sizeof(T));
    value = function(old);
    std::memcpy(address(), &value, sizeof(T));
    return old;
  }

 private:
  static constexpr auto kSize = static_cast<std::ptrdiff_t>(sizeof(T));
  static_assert(std::is_trivially_copyable_v<T>);
  void check(Machine::Access kind) const {
    machine.access(*array_, offset_, sizeof(T), alignof(T), kind);
  }
  char* address() const { return &machine.arena[array_->begin + static_cast<size_t>(offset_)]; }
  const SharedArray* array_;
  std::ptrdiff_t offset_ = 0;
};

template <typename T>
Shared<T> dynamic_shared() {
  return {&machine.dynamic, 0};
}
template <typename U, typename T>
Shared<U> shared_cast(const Shared<T>& pointer) {
  return pointer.template cast<U>();
}

template <typename T, typename Function>
T update_atomically(Shared<T> pointer, Function function) {
  return pointer.update_atomically(function);
}

}  // namespace cuda_emulator
