// The one header that every kernel file includes.  It holds what makes the same source plain CUDA
// under nvcc and checked C++ under the emulator of tests/cuda_emulator (g++ -x c++
// -DAMSTEL_EMULATED), and the few device helpers that all kernels share: vector access, dtype
// conversion, sub-warp sums.  No torch in here or in any kernel file.
//
// Rules that keep a kernel executable everywhere:
//
// - launches and shared memory through the three macros below;
// - one barrier a line, explicit masks that name exactly the lanes that take part;
// - no inline PTX without a portable twin, no spin waits, no kernels in unnamed namespaces;
// - shared memory is handled as SharedPointer<T>: index it (s[i]), offset it (s + i), take an
//   element's address (&s[i]), pass it to load_vector, store_vector or an atomic function, retype
//   it with shared_cast<U>(s); name the type of what is read (float x = s[i], not auto).
#pragma once

#ifdef AMSTEL_EMULATED
#include "cuda_emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef AMSTEL_EMULATED

// AMSTEL_LAUNCH((kernel<float, 4>), grid, block, shared_bytes, stream, args...): parentheses where
// the name has commas.
#define AMSTEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::cuda_emulator::launch(#kernel, (kernel), grid, block, shared_bytes, stream, __VA_ARGS__)
// One static shared array, at least 16-byte aligned.
#define AMSTEL_SHARED(type, name, count)                                           \
  static ::cuda_emulator::SharedArray name##_array{#name, sizeof(type) * (count)}; \
  const ::cuda_emulator::Shared<type> name(name##_array)
// The dynamic shared memory of the launch, seen as an array of type, 16-byte aligned.
#define AMSTEL_DYNAMIC_SHARED(type, name) \
  const ::cuda_emulator::Shared<type> name = ::cuda_emulator::dynamic_shared<type>()

namespace amstel {
template <typename T>
using SharedPointer = ::cuda_emulator::Shared<T>;
using ::cuda_emulator::shared_cast;
}  // namespace amstel

#else

#define AMSTEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define AMSTEL_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define AMSTEL_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char amstel_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(amstel_dynamic_shared)

namespace amstel {
template <typename T>
using SharedPointer = T*;
template <typename U, typename T>
__device__ __forceinline__ U* shared_cast(T* pointer) {
  return reinterpret_cast<U*>(pointer);
}
}  // namespace amstel

#endif

namespace amstel {

constexpr int kThreads = 256;  // of every block

// Blocks that shall run on a multiprocessor at a time, for __launch_bounds__: those before sm_80
// have 1024 threads, later ones at least 1536.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int resident(int blocks) { return blocks < 1024 / kThreads ? blocks : 1024 / kThreads; }
#else
constexpr int resident(int blocks) { return blocks; }
#endif

// Sums are formed in Accumulate<T>: float for half, bfloat16 and float, double for double.
template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

__host__ __device__ __forceinline__ float widen(float x) { return x; }
__host__ __device__ __forceinline__ double widen(double x) { return x; }
__host__ __device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__host__ __device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T narrow(Accumulate<T> x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

// N elements that travel as one access.  Their bytes are one machine word, or 16 bytes: LDG.128 /
// STG.128.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  static_assert(sizeof(T) * N <= 16 && (sizeof(T) * N & (sizeof(T) * N - 1)) == 0);
  T data[N];
  __device__ __forceinline__ T& operator[](int i) { return data[i]; }
  __device__ __forceinline__ const T& operator[](int i) const { return data[i]; }
};

template <typename T>
inline constexpr int kVectorWidth = 16 / sizeof(T);  // elements of one 16-byte access

namespace detail {
template <int Bytes>
using Word = std::conditional_t<
    Bytes == 16, uint4,
    std::conditional_t<Bytes == 8, uint2,
                       std::conditional_t<Bytes == 4, uint32_t,
                                          std::conditional_t<Bytes == 2, uint16_t, uint8_t>>>>;
}  // namespace detail

// One aligned access of N elements.
template <int N, typename T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* pointer) {
  Vector<T, N> result;
#ifdef AMSTEL_EMULATED
  ::cuda_emulator::check_alignment(pointer, sizeof(result));
  memcpy(static_cast<void*>(&result), pointer, sizeof(result));
#else
  const auto word = *reinterpret_cast<const detail::Word<sizeof(T) * N>*>(pointer);
  memcpy(&result, &word, sizeof(word));
#endif
  return result;
}

template <typename T, int N>
__device__ __forceinline__ void store_vector(T* pointer, const Vector<T, N>& value) {
#ifdef AMSTEL_EMULATED
  ::cuda_emulator::check_alignment(pointer, sizeof(value));
  memcpy(static_cast<void*>(pointer), &value, sizeof(value));
#else
  detail::Word<sizeof(T) * N> word;
  memcpy(&word, &value, sizeof(word));
  *reinterpret_cast<detail::Word<sizeof(T) * N>*>(pointer) = word;
#endif
}

// 16 bytes at once, whatever the element type.
template <typename T>
__device__ __forceinline__ Vector<T, kVectorWidth<T>> load16(const T* pointer) {
  return load_vector<kVectorWidth<T>>(pointer);
}
template <typename T>
__device__ __forceinline__ void store16(T* pointer, const Vector<T, kVectorWidth<T>>& value) {
  store_vector(pointer, value);
}

// store_vector for values computed one by one, whose 16 bytes nvcc else stores in four pieces.
template <typename T, int N>
__device__ __forceinline__ void store_row(T* pointer, const Vector<T, N>& value) {
#ifndef AMSTEL_EMULATED
  if constexpr (sizeof(value) == 16) {
    uint4 word;
    memcpy(&word, &value, sizeof(word));
    __stwb(reinterpret_cast<uint4*>(pointer), word);
    return;
  }
#endif
  store_vector(pointer, value);
}

// N neighboring elements, in accesses of at most 16 bytes.
template <typename T, int N>
struct Cells {
  static constexpr int kWidth = N < kVectorWidth<T> ? N : kVectorWidth<T>;
  Vector<T, kWidth> part[N / kWidth];
  __device__ __forceinline__ T& operator[](int n) { return part[n / kWidth][n % kWidth]; }
  __device__ __forceinline__ const T& operator[](int n) const {
    return part[n / kWidth][n % kWidth];
  }
  __device__ __forceinline__ void load(const T* pointer) {
#pragma unroll
    for (int i = 0; i < N / kWidth; ++i) part[i] = load_vector<kWidth>(pointer + i * kWidth);
  }
  __device__ __forceinline__ void store(T* pointer) const {
#pragma unroll
    for (int i = 0; i < N / kWidth; ++i) store_row(pointer + i * kWidth, part[i]);
  }
};

#ifdef AMSTEL_EMULATED  // under nvcc a shared pointer is a pointer, and the functions above serve
                        // it
template <int N, typename T>
Vector<T, N> load_vector(SharedPointer<T> pointer) {
  return *shared_cast<Vector<T, N>>(pointer);
}
template <typename T, int N>
void store_vector(SharedPointer<T> pointer, const Vector<T, N>& value) {
  *shared_cast<Vector<T, N>>(pointer) = value;
}
template <typename T>
Vector<T, kVectorWidth<T>> load16(SharedPointer<T> pointer) {
  return load_vector<kVectorWidth<T>>(pointer);
}
template <typename T>
void store16(SharedPointer<T> pointer, const Vector<T, kVectorWidth<T>>& value) {
  store_vector(pointer, value);
}
#endif

// A warp split into tiles of Width lanes (a power of two): the mask of the calling lane's tile, for
// the *_sync functions.
template <int Width>
__device__ __forceinline__ unsigned tile_mask() {
  static_assert(Width >= 1 && Width <= 32 && (Width & (Width - 1)) == 0);
  if constexpr (Width == 32) {
    return 0xffffffffu;
  } else {
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    return ((1u << Width) - 1u) << (thread % 32 / Width * Width);
  }
}

// The sum over the tile, the same bits in every lane of it (addition commutes, so both partners of
// a step agree).
template <int Width, typename T>
__device__ __forceinline__ T tile_sum(T value) {
  const unsigned mask = tile_mask<Width>();
#pragma unroll
  for (int step = Width / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(mask, value, step);
  }
  return value;
}

// Adds up the tiles of a block of kThreads, lane by lane, in a tree; the result is in tile 0.
// `tile` is their width, a power of two; `thread` counts the threads of the block.
template <int N, typename S>
__device__ __forceinline__ void sum_tiles(SharedPointer<S> partial, int thread, int tile,
                                          S (&sum)[N]) {
  __syncthreads();  // who read the last sums has done so
#pragma unroll
  for (int n = 0; n < N; ++n) partial[n * kThreads + thread] = sum[n];
  for (int half = kThreads / 2; half >= tile; half /= 2) {
    __syncthreads();
    if (thread < half) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const S other = partial[n * kThreads + thread + half];
        sum[n] += other;
        partial[n * kThreads + thread] = sum[n];
      }
    }
  }
}

}  // namespace amstel
