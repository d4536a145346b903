// From run-time dtypes, widths and shapes to template arguments and grids, for the launch wrappers.
#pragma once

#include "common/check.h"
#include "common/numbers.h"
#include "common/rows.h"
#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

template <class T>
const T* data(const OptionalTensor& t) {
  return static_cast<const T*>(pointer(t));
}
template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* mutable_data(const OptionalTensor& t) {
  return t ? static_cast<T*>(t->mutable_data_ptr()) : nullptr;
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

template <class T>
struct Type {
  using type = T;
};

template <int kValue>
using Int = std::integral_constant<int, kValue>;

// f(Type<float>{}); the dtype has been checked.
template <class F>
void with_float(ScalarType t, const F& f) {
  switch (t) {
    case ScalarType::Double:
      return f(Type<double>{});
    case ScalarType::Float:
      return f(Type<float>{});
    case ScalarType::BFloat16:
      return f(Type<__nv_bfloat16>{});
    case ScalarType::Half:
      return f(Type<__half>{});
    default:
      fail("no CUDA kernel for ", torch::headeronly::toString(t));
  }
}

// f(Type<int32_t>{}) or f(Type<int64_t>{}); the dtype has been checked.
template <class F>
void with_index(ScalarType t, const F& f) {
  if (t == ScalarType::Int) return f(Type<int32_t>{});
  f(Type<int64_t>{});
}

// What all the addresses of some accesses are multiples of, in bytes: collect base pointers and the
// strides between rows.
class Alignment {
 public:
  Alignment& pointer(const void* p) {
    bits_ |= reinterpret_cast<uintptr_t>(p);
    return *this;
  }
  Alignment& bytes(int64_t n) {
    bits_ |= static_cast<uintptr_t>(n);
    return *this;
  }
  bool allows(int bytes) const { return bits_ % static_cast<uintptr_t>(bytes) == 0; }

 private:
  uintptr_t bits_ = 0;
};

constexpr int64_t kGridX = (int64_t{1} << 31) - 1;
#ifdef AMSTEL_EMULATED
constexpr int64_t kGridYZ = 3;  // so that the tests meet launches that exceed it
#else
constexpr int64_t kGridYZ = 65535;
#endif

// What the second and third dimension of a grid take of n; kernels stride over the rest.
inline unsigned grid_yz(int64_t n) { return static_cast<unsigned>(n < kGridYZ ? n : kGridYZ); }

// Threads that fill a large card: four blocks on each of its multiprocessors.  A launch of fewer
// takes narrower accesses, more threads of less work each.
#ifdef AMSTEL_EMULATED
constexpr int64_t kManyThreads = 64;  // so that the tests meet both
#else
constexpr int64_t kManyThreads = int64_t{1} << 17;
#endif

// A block of threads that share nothing: the lanes that hold a row of `parts` accesses at once, and
// rows beside it.
inline dim3 block_of_rows(int64_t parts) {
  const unsigned lanes = static_cast<unsigned>(parts < kThreads ? parts : kThreads);
  return dim3(lanes, kThreads / lanes);
}

// The first dimension of a grid.
inline unsigned blocks(const char* op, int64_t n) {
  AMSTEL_CHECK(n <= kGridX, op, ": needs ", n, " blocks, a grid takes ", kGridX);
  return static_cast<unsigned>(n);
}

}  // namespace amstel::cuda
