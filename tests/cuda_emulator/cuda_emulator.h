// Runs CUDA kernels on the CPU, as C++, with checks.  csrc/cuda/kernels/kernel.cuh includes this
// header where AMSTEL_EMULATED is defined; the kernels themselves do not change.
//
// Each CUDA thread is a fiber.  The threads of a block take turns, in forward, reversed or seeded
// random order, each one until it ends or waits for others.  Every shared-memory access goes
// through Shared<T>, which knows for each byte who wrote and read it last.  Reported, as a C++
// exception out of the launch that names block, thread and place:
//
// - shared memory: index out of bounds, misaligned vector, read before any write, race (two
//   threads, at least one write, no barrier between);
// - barriers: threads that wait at different ones, or for threads that have ended;
// - warp functions: caller or source lane not in the mask, named lane absent, ended or elsewhere;
// - launches: configurations that a GPU refuses.
//
// Global memory is plain memory: its bounds are held by red zones around the buffers (build.py) and
// AddressSanitizer.  Not modeled: timing, weak memory order between blocks, threads that spin.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <vector_functions.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "fiber.h"

#undef __launch_bounds__
#define __launch_bounds__(...)

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace cuda_emulator {

using Site = std::source_location;

// ---- Threads, warps, blocks ----

enum class Order { kForward, kReversed, kRandom };

// What one lane of a warp function gets, computed when every named lane has arrived.
using Combine = uint64_t (*)(const std::array<uint64_t, 32>& values, unsigned mask, int source);

struct Thread {
  enum State { kNotStarted, kRunning, kAtBarrier, kInWarp, kReleased, kEnded };
  State state = kNotStarted;
  Fiber* fiber = nullptr;
  const char* operation = "";  // where it waits, for whom, with what
  Site site;
  unsigned mask = 0;
  int source = 0;
  uint64_t value = 0, result = 0;
  Combine combine = nullptr;
};

// What is known of one byte of shared memory.  Times are values of Machine::now.
struct Shadow {
  uint64_t write_time = 0;
  std::array<uint64_t, 2>
      read_time{};  // of two different readers: one of them differs from any writer
  uint16_t writer = 0;
  std::array<uint16_t, 2> reader{};
  bool atomic = false;  // the last write
};

// One declaration of shared memory; it gets its place in the arena anew in every block.
struct SharedArray {
  const char* name;
  size_t bytes;
  size_t begin = 0;
  uint64_t block = 0;
};

struct Canceled {};  // unwinds the threads that still wait when a launch has failed

struct Machine {
  static constexpr size_t kArenaBytes = 227 * 1024, kStaticBytes = 48 * 1024;

  std::recursive_mutex mutex;
  Order order_kind = Order::kForward;
  uint64_t seed = 0;

  // The launch.
  const char* kernel_name = "";
  bool launched = false;
  void (*invoke)(void*) = nullptr;
  void* invocation = nullptr;
  std::vector<uint3> indices;
  std::vector<Thread> threads;
  std::vector<unsigned> order;
  std::mt19937_64 random;
  SharedArray dynamic{"dynamic shared memory", 0};
  std::map<const void*, size_t> dynamic_limits;  // what cudaFuncSetAttribute allowed

  // The block that runs.
  unsigned current = 0;  // thread
  size_t next_start = 0, ended = 0;
  uint64_t block_number = 0;
  std::exception_ptr failure;
  bool canceled = false;
  size_t arena_used = 0;
  uint64_t now = 1;  // one more after every synchronization
  uint64_t block_begin = 0,
           barrier_time = 0;  // what happened up to barrier_time is ordered for the whole block
  std::vector<std::array<uint64_t, 32>>
      seen;  // [thread][lane]: up to when that lane's past is ordered for the thread
  std::vector<Shadow> shadow;
  alignas(256) std::array<char, kArenaBytes> arena;

  // Fibers: all there are, and those that hold no thread.
  Fiber main;
  Fiber* running = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> free_fibers;

  Machine() {
    const char* text =
        std::getenv("AMSTEL_EMULATOR_ORDER");  // forward | reversed | random | random:SEED
    if (text == nullptr) return;
    const std::string value = text;
    if (value == "reversed") order_kind = Order::kReversed;
    if (value.starts_with("random")) order_kind = Order::kRandom;
    if (value.starts_with("random:")) seed = std::stoull(value.substr(7));
  }

  static std::string text(const uint3& i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) +
           ")";
  }
  std::string thread_text(unsigned thread) const { return "thread " + text(indices[thread]); }
  static std::string site_text(const char* operation, const Site& site) {
    const std::string file = site.file_name();
    return std::string(operation) + " (" + file.substr(file.rfind('/') + 1) + ":" +
           std::to_string(site.line()) + ")";
  }
  std::string wait_text(unsigned thread) const {
    return site_text(threads[thread].operation, threads[thread].site);
  }

  [[noreturn]] void fail(const std::string& message) const {
    std::string where = std::string("kernel ") + kernel_name;
    if (launched) where += ", block " + text(blockIdx);
    throw std::runtime_error(where + ": " + message);
  }
  [[noreturn]] void fail_here(const std::string& message) const {
    fail(thread_text(current) + ": " + message);
  }

  // -- Scheduling

  void run(const char* name, dim3 grid, dim3 block, size_t dynamic_bytes, void (*function)(void*),
           void* argument);
  void run_block();
  void run_thread(unsigned thread);
  void enter(Fiber* fiber);
  static void fiber_loop();
  void release_barrier();
  [[noreturn]] void explain_standstill() const;
  void shuffle_order() {
    if (order_kind == Order::kRandom) std::shuffle(order.begin(), order.end(), random);
  }
  void set_current(unsigned thread) {
    current = thread;
    threadIdx = indices[thread];
  }

  // The current thread sleeps until somebody sets it to kReleased.
  void wait() {
    const unsigned self = current;
    Fiber* const fiber = running;
    threads[self].fiber = fiber;
    switch_fiber(*fiber, main);
    threads[self].state = Thread::kRunning;
    if (canceled) throw Canceled{};
  }

  static bool same_site(const Thread& a, const Thread& b) {
    const auto same = [](const char* x, const char* y) { return x == y || std::strcmp(x, y) == 0; };
    return a.site.line() == b.site.line() && same(a.operation, b.operation) &&
           same(a.site.file_name(), b.site.file_name());
  }

  // Waits for the whole block; returns how many threads came with a true predicate.
  uint64_t barrier(const char* operation, bool predicate, const Site& site) {
    Thread& self = threads[current];
    self.state = Thread::kAtBarrier;
    self.operation = operation;
    self.site = site;
    self.value = predicate;
    wait();
    return self.result;
  }

  uint64_t warp(const char* operation, unsigned mask, uint64_t value, int source, Combine combine,
                const Site& site);
  bool warp_complete(unsigned first, const Thread& self) const;
  void order_lanes(unsigned first, unsigned mask);

  // -- Shared memory

  void place(SharedArray& array) {
    if (array.block == block_number) return;
    array.block = block_number;
    array.begin = (arena_used + 15) / 16 * 16;
    arena_used = array.begin + array.bytes;
    if (arena_used - dynamic.bytes > kStaticBytes) {
      fail(std::string("more than 48 KiB of static shared memory at '") + array.name + "'");
    }
    if (arena_used > kArenaBytes) fail("more than 227 KiB of shared memory");
    // Values that no kernel expects: NaN as float, half and bfloat16, negative as an integer.
    std::memset(&arena[array.begin], 0xff, array.bytes);
  }

  enum Access { kRead, kWrite, kAtomic };
  void access(const SharedArray& array, std::ptrdiff_t offset, size_t bytes, size_t alignment,
              Access kind);
  bool ordered(unsigned thread, uint64_t time) const {
    return time <= barrier_time || thread == current ||
           (thread / 32 == current / 32 && time <= seen[current][thread % 32]);
  }
};

inline Machine machine;

inline void Machine::run(const char* name, dim3 grid, dim3 block, size_t dynamic_bytes,
                         void (*function)(void*), void* argument) {
  const std::lock_guard lock(mutex);
  if (launched) fail("launched from inside a kernel");
  kernel_name = name;
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (count == 0 || count > 1024 || block.z > 64 || blocks == 0 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535) {
    fail("invalid launch configuration: grid " + text({grid.x, grid.y, grid.z}) + ", block " +
         text({block.x, block.y, block.z}));
  }
  if (dynamic_bytes > kArenaBytes) {
    fail(std::to_string(dynamic_bytes) + " bytes of dynamic shared memory, at most 227 KiB exist");
  }
  invoke = function;
  invocation = argument;
  gridDim = grid;
  blockDim = block;
  dynamic.bytes = dynamic_bytes;
  random.seed(seed);
  indices.clear();
  for (unsigned z = 0; z < block.z; ++z) {
    for (unsigned y = 0; y < block.y; ++y) {
      for (unsigned x = 0; x < block.x; ++x) indices.push_back({x, y, z});
    }
  }
  order.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    order[i] = order_kind == Order::kReversed ? static_cast<unsigned>(count) - 1 - i : i;
  }
  if (seen.size() < count) seen.resize(count);
  if (shadow.empty()) shadow.resize(kArenaBytes);

  uint64_t step =
      blocks / 2 +
      1;  // blocks in random order: a walk whose step shares no factor with their number
  while (std::gcd(step, blocks) != 1) ++step;
  launched = true;
  for (uint64_t i = 0; i < blocks && !failure; ++i) {
    uint64_t b = i;
    if (order_kind == Order::kReversed) b = blocks - 1 - i;
    if (order_kind == Order::kRandom) b = (i * step + seed) % blocks;
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    run_block();
  }
  launched = canceled = false;
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
}

inline void Machine::run_block() {
  threads.assign(order.size(), Thread{});
  next_start = ended = 0;
  ++block_number;
  block_begin = barrier_time = now++;
  arena_used = 0;
  try {
    shuffle_order();
    if (dynamic.bytes > 0) place(dynamic);
    while (next_start < order.size() && !failure) {
      if (free_fibers.empty()) {
        fibers.push_back(std::make_unique<Fiber>(&Machine::fiber_loop, fibers.size()));
        free_fibers.push_back(fibers.back().get());
      }
      Fiber* const fiber = free_fibers.back();
      free_fibers.pop_back();
      enter(fiber);
    }
    while (ended < threads.size() && !failure) {
      shuffle_order();
      bool progress = false;
      for (const unsigned t : order) {
        if (threads[t].state != Thread::kReleased || failure) continue;
        progress = true;
        set_current(t);
        enter(threads[t].fiber);
      }
      if (!progress && !failure) release_barrier();
    }
  } catch (...) {
    failure = std::current_exception();
  }
  if (!failure) return;
  canceled = true;
  for (unsigned t = 0; t < threads.size(); ++t) {
    const auto state = threads[t].state;
    if (state == Thread::kAtBarrier || state == Thread::kInWarp || state == Thread::kReleased) {
      set_current(t);
      enter(threads[t].fiber);
    }
  }
}

inline void Machine::enter(Fiber* fiber) {
  running = fiber;
  switch_fiber(main, *fiber);
  if (fiber->idle) free_fibers.push_back(fiber);
}

// A fiber starts threads, one after another, until one of them waits; then another fiber goes on.
inline void Machine::fiber_loop() {
  Machine& m = machine;
  Fiber* const self = m.running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.main.stack_bottom, &m.main.stack_bytes);
#endif
  for (;;) {
    self->idle = false;
    while (m.next_start < m.order.size() && !m.failure) m.run_thread(m.order[m.next_start++]);
    self->idle = true;
    switch_fiber(*self, m.main);
  }
}

inline void Machine::run_thread(unsigned thread) {
  set_current(thread);
  threads[thread].state = Thread::kRunning;
  try {
    invoke(invocation);
  } catch (const Canceled&) {
  } catch (...) {
    if (!failure) failure = std::current_exception();
  }
  threads[thread].state = Thread::kEnded;
  ++ended;
}

// Called when no thread can go on: either all wait at one barrier, or this is an error to explain.
inline void Machine::release_barrier() {
  uint64_t predicates = 0;
  for (const Thread& thread : threads) {
    if (thread.state != Thread::kAtBarrier || !same_site(thread, threads[0])) explain_standstill();
    predicates += thread.value;
  }
  for (Thread& thread : threads) {
    thread.state = Thread::kReleased;
    thread.result = predicates;
  }
  barrier_time = now++;
}

inline void Machine::explain_standstill() const {
  for (unsigned t = 0; t < threads.size(); ++t) {
    const Thread& self = threads[t];
    if (self.state != Thread::kInWarp) continue;
    const unsigned first = t / 32 * 32;
    for (unsigned lane = 0; lane < 32; ++lane) {
      if ((self.mask >> lane & 1) == 0) continue;
      const std::string head =
          thread_text(t) + " waits in " + wait_text(t) + " for lane " + std::to_string(lane);
      if (first + lane >= threads.size()) fail(head + ", which the block does not have");
      const Thread& other = threads[first + lane];
      if (other.state == Thread::kEnded) fail(head + ", which has ended");
      if (other.state == Thread::kAtBarrier || !same_site(self, other)) {
        fail("deadlock: " + head + ", which waits in " + wait_text(first + lane));
      }
      if (other.mask != self.mask) fail(head + ", which names other lanes in its mask");
    }
  }
  // Some wait at a barrier, and others do not wait at the same one.
  const auto at_barrier = [](const Thread& t) { return t.state == Thread::kAtBarrier; };
  const auto waiting = static_cast<unsigned>(
      std::find_if(threads.begin(), threads.end(), at_barrier) - threads.begin());
  const std::string head =
      "barrier divergence: " + thread_text(waiting) + " waits in " + wait_text(waiting);
  for (unsigned t = 0; t < threads.size(); ++t) {
    if (!at_barrier(threads[t])) fail(head + " for " + thread_text(t) + ", which has ended");
    if (!same_site(threads[waiting], threads[t])) {
      fail(head + " while " + thread_text(t) + " waits in " + wait_text(t));
    }
  }
  fail("standstill");
}

// ---- Warp functions ----

inline bool Machine::warp_complete(unsigned first, const Thread& self) const {
  for (unsigned rest = self.mask; rest != 0; rest &= rest - 1) {
    const unsigned t = first + static_cast<unsigned>(std::countr_zero(rest));
    if (t >= threads.size() || threads[t].state != Thread::kInWarp ||
        threads[t].mask != self.mask || !same_site(self, threads[t])) {
      return false;
    }
  }
  return true;
}

// __syncwarp: every lane's past, and what that lane had seen of others, is ordered for every named
// lane.
inline void Machine::order_lanes(unsigned first, unsigned mask) {
  std::array<uint64_t, 32> joined{};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    for (unsigned k = 0; k < 32; ++k) joined[k] = std::max(joined[k], seen[first + lane][k]);
    joined[lane] = now;
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) seen[first + lane] = joined;
  }
  ++now;
}

// The last lane to arrive computes all results and goes on at once.  Without combine it is
// __syncwarp.
inline uint64_t Machine::warp(const char* operation, unsigned mask, uint64_t value, int source,
                              Combine combine, const Site& site) {
  const unsigned first = current / 32 * 32, lane = current % 32;
  if ((mask >> lane & 1) == 0) {
    fail_here(site_text(operation, site) + ": lane " + std::to_string(lane) +
              " calls but is not in the mask");
  }
  if (source >= 0 && (mask >> source & 1) == 0) {
    fail_here(site_text(operation, site) + ": reads lane " + std::to_string(source) +
              ", which is not in the mask");
  }
  Thread& self = threads[current];
  self.operation = operation;
  self.site = site;
  self.mask = mask;
  self.value = value;
  self.source = source;
  self.combine = combine;
  self.state = Thread::kInWarp;
  if (!warp_complete(first, self)) {
    wait();
    return self.result;
  }
  std::array<uint64_t, 32> values{};
  for (unsigned k = 0; k < 32; ++k) {
    if (mask >> k & 1) values[k] = threads[first + k].value;
  }
  for (unsigned k = 0; k < 32; ++k) {
    if ((mask >> k & 1) == 0) continue;
    Thread& thread = threads[first + k];
    if (combine != nullptr) thread.result = combine(values, mask, thread.source);
    thread.state = Thread::kReleased;
  }
  if (combine == nullptr) order_lanes(first, mask);
  self.state = Thread::kRunning;
  return self.result;
}

template <typename T>
T shuffle(const char* operation, unsigned mask, T value, int source, const Site& site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const uint64_t result = machine.warp(
      operation, mask, bits, source,
      [](const std::array<uint64_t, 32>& values, unsigned, int lane) { return values[lane]; },
      site);
  std::memcpy(static_cast<void*>(&value), &result, sizeof(T));
  return value;
}

inline int lane_id() { return static_cast<int>(machine.current % 32); }

inline unsigned ballot(const char* operation, unsigned mask, bool predicate, const Site& site) {
  return static_cast<unsigned>(machine.warp(
      operation, mask, predicate, -1,
      [](const std::array<uint64_t, 32>& values, unsigned, int) {
        uint64_t result = 0;
        for (unsigned k = 0; k < 32; ++k) result |= values[k] << k;
        return result;
      },
      site));
}

// Reductions over the 32-bit integers of the named lanes.
template <typename T, typename Operation>
T reduce(const char* operation, unsigned mask, T value, Operation, const Site& site) {
  return static_cast<T>(machine.warp(
      operation, mask, static_cast<uint64_t>(value), -1,
      [](const std::array<uint64_t, 32>& values, unsigned lanes, int) {
        T result = static_cast<T>(values[std::countr_zero(lanes)]);
        for (unsigned rest = lanes & (lanes - 1); rest != 0; rest &= rest - 1) {
          result = Operation{}(result, static_cast<T>(values[std::countr_zero(rest)]));
        }
        return static_cast<uint64_t>(result);
      },
      site));
}

// ---- Global memory and launches ----

inline void check_alignment(const void* pointer, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0) {
    machine.fail_here("misaligned global access of " + std::to_string(bytes) + " bytes");
  }
}

// Blocks and threads take turns, so plain code is atomic.
template <typename T, typename Function>
T update_atomically(T* pointer, Function function) {
  const T old = *pointer;
  *pointer = function(old);
  return old;
}

template <typename Kernel, typename... Values>
void launch_values(const char* name, Kernel kernel, dim3 grid, dim3 block, size_t dynamic_bytes,
                   const std::tuple<Values...>& values) {
  auto call = [&] { std::apply(kernel, values); };
  machine.run(
      name, grid, block, dynamic_bytes, [](void* f) { (*static_cast<decltype(call)*>(f))(); },
      &call);
}

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            size_t dynamic_bytes, cudaStream_t, const Arguments&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  size_t& limit = machine.dynamic_limits[reinterpret_cast<const void*>(kernel)];
  if (dynamic_bytes > std::max(limit, Machine::kStaticBytes)) {
    machine.fail("more than 48 KiB of dynamic shared memory without cudaFuncSetAttribute");
  }
  launch_values(name, kernel, grid, block, dynamic_bytes,
                std::tuple<std::remove_const_t<Parameters>...>(
                    static_cast<std::remove_const_t<Parameters>>(arguments)...));
}

// A kernel that tests launch by name, its arguments passed by address as cudaLaunchKernel takes
// them.
struct Instance {
  const char* name;
  std::string symbol;     // the mangled name, which the kernel has in PTX too
  std::string signature;  // a letter of Python's struct module for each parameter; S and a size for
                          // a struct
  std::function<void(dim3, dim3, size_t, void**)> launch;

  template <typename... Parameters>
  Instance(const char* name_, void (*kernel)(Parameters...)) : name(name_) {
    Dl_info info{};
    if (dladdr(reinterpret_cast<void*>(kernel), &info) != 0 && info.dli_sname != nullptr) {
      symbol = info.dli_sname;
    }
    ((signature += (signature.empty() ? "" : " ") + letter<Parameters>()), ...);
    launch = [name_, kernel](dim3 grid, dim3 block, size_t dynamic_bytes, void** arguments) {
      [&]<size_t... i>(std::index_sequence<i...>) {
        launch_values(name_, kernel, grid, block, dynamic_bytes,
                      std::tuple<std::remove_const_t<Parameters>...>(
                          *static_cast<std::remove_const_t<Parameters>*>(arguments[i])...));
      }(std::index_sequence_for<Parameters...>{});
    };
    all().push_back(this);
  }
  Instance(const Instance&) = delete;

  static std::vector<Instance*>& all() {
    static std::vector<Instance*> instances;
    return instances;
  }

  template <typename T>
  static std::string letter() {
    if constexpr (std::is_pointer_v<T>) return "P";
    if constexpr (std::is_same_v<T, bool>) return "?";
    if constexpr (std::is_same_v<T, float>) return "f";
    if constexpr (std::is_same_v<T, double>) return "d";
    if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      constexpr char kLetters[] = {'b', 'h', 'i', 'q'};
      const char lower = kLetters[std::countr_zero(sizeof(T))];
      return {std::is_unsigned_v<T> ? static_cast<char>(lower - 'a' + 'A') : lower};
    }
    if constexpr (std::is_class_v<T>) return "S" + std::to_string(sizeof(T));
  }
};

}  // namespace cuda_emulator

// ---- What pytest calls through ctypes ----

#define AMSTEL_EXPORT extern "C" __attribute__((used, visibility("default"))) inline

// One line "name symbol signature..." for each instance.
AMSTEL_EXPORT const char* amstel_emulator_instances() {
  static std::string text;
  text.clear();
  for (const auto* i : cuda_emulator::Instance::all()) {
    text += std::string(i->name) + " " + i->symbol + " " + i->signature + "\n";
  }
  return text.c_str();
}
AMSTEL_EXPORT void amstel_emulator_set_order(int order, uint64_t seed) {
  cuda_emulator::machine.order_kind = static_cast<cuda_emulator::Order>(order);
  cuda_emulator::machine.seed = seed;
}
// Returns null, or what went wrong.
AMSTEL_EXPORT const char* amstel_emulator_launch(int instance, const unsigned* grid,
                                                 const unsigned* block, size_t dynamic_bytes,
                                                 void** arguments) {
  static std::string message;
  try {
    cuda_emulator::Instance::all()[instance]->launch(
        {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, dynamic_bytes, arguments);
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}
// Red zones: under AddressSanitizer any access of compiled code to them is reported.
AMSTEL_EXPORT void amstel_emulator_poison([[maybe_unused]] void* pointer,
                                          [[maybe_unused]] size_t bytes,
                                          [[maybe_unused]] bool poison) {
#if defined(__SANITIZE_ADDRESS__)
  if (poison) {
    __asan_poison_memory_region(pointer, bytes);
  } else {
    __asan_unpoison_memory_region(pointer, bytes);
  }
#endif
}
#undef AMSTEL_EXPORT

#include "cuda_functions.h"
