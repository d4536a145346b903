// The CUDA functions and the sliver of the CUDA runtime that kernels and launch wrappers use, for
// the emulator: thin names over cuda_emulator.h, which includes this file at its end.  Add what a
// new kernel needs.
#pragma once

#include "cuda_emulator.h"
#include "shared.h"

// ---- Barriers, warp functions ----

inline void __syncthreads(cuda_emulator::Site site = cuda_emulator::Site::current()) {
  cuda_emulator::machine.barrier("__syncthreads", false, site);
}
inline int __syncthreads_count(int predicate,
                               cuda_emulator::Site site = cuda_emulator::Site::current()) {
  return static_cast<int>(
      cuda_emulator::machine.barrier("__syncthreads_count", predicate != 0, site));
}
inline int __syncthreads_or(int predicate,
                            cuda_emulator::Site site = cuda_emulator::Site::current()) {
  return cuda_emulator::machine.barrier("__syncthreads_or", predicate != 0, site) > 0;
}
inline int __syncthreads_and(int predicate,
                             cuda_emulator::Site site = cuda_emulator::Site::current()) {
  return cuda_emulator::machine.barrier("__syncthreads_and", predicate == 0, site) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       cuda_emulator::Site site = cuda_emulator::Site::current()) {
  cuda_emulator::machine.warp("__syncwarp", mask, 0, -1, nullptr, site);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_emulator::Site site = cuda_emulator::Site::current()) {
  const int lane = cuda_emulator::lane_id();
  return cuda_emulator::shuffle("__shfl_sync", mask, value,
                                (lane & ~(width - 1)) | (source & (width - 1)), site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 cuda_emulator::Site site = cuda_emulator::Site::current()) {
  const int lane = cuda_emulator::lane_id(), from = lane - static_cast<int>(delta);
  return cuda_emulator::shuffle("__shfl_up_sync", mask, value,
                                from < (lane & ~(width - 1)) ? lane : from, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   cuda_emulator::Site site = cuda_emulator::Site::current()) {
  const int lane = cuda_emulator::lane_id(), from = lane + static_cast<int>(delta);
  return cuda_emulator::shuffle("__shfl_down_sync", mask, value,
                                from > (lane | (width - 1)) ? lane : from, site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  cuda_emulator::Site site = cuda_emulator::Site::current()) {
  const int lane = cuda_emulator::lane_id(), from = lane ^ lane_mask;
  return cuda_emulator::shuffle("__shfl_xor_sync", mask, value,
                                from > (lane | (width - 1)) ? lane : from, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              cuda_emulator::Site site = cuda_emulator::Site::current()) {
  return cuda_emulator::ballot("__ballot_sync", mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate,
                      cuda_emulator::Site site = cuda_emulator::Site::current()) {
  return cuda_emulator::ballot("__any_sync", mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      cuda_emulator::Site site = cuda_emulator::Site::current()) {
  return cuda_emulator::ballot("__all_sync", mask, predicate != 0, site) == mask;
}
// The lanes that happen to run together: on a GPU any subset may, so here the smallest.
inline unsigned __activemask() { return 1u << cuda_emulator::lane_id(); }

#define AMSTEL_REDUCE(name, Type, Operation)                                    \
  inline Type name(unsigned mask, Type value,                                   \
                   cuda_emulator::Site site = cuda_emulator::Site::current()) { \
    return cuda_emulator::reduce(#name, mask, value, Operation, site);          \
  }
AMSTEL_REDUCE(__reduce_add_sync, unsigned, std::plus<unsigned>{})
AMSTEL_REDUCE(__reduce_add_sync, int, [](int a, int b) {
  return static_cast<int>(static_cast<unsigned>(a) + static_cast<unsigned>(b));
})
AMSTEL_REDUCE(__reduce_min_sync, unsigned, [](unsigned a, unsigned b) { return std::min(a, b); })
AMSTEL_REDUCE(__reduce_min_sync, int, [](int a, int b) { return std::min(a, b); })
AMSTEL_REDUCE(__reduce_max_sync, unsigned, [](unsigned a, unsigned b) { return std::max(a, b); })
AMSTEL_REDUCE(__reduce_max_sync, int, [](int a, int b) { return std::max(a, b); })
#undef AMSTEL_REDUCE

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] inline void __trap() { cuda_emulator::machine.fail_here("__trap"); }

// ---- Atomics, on T* and Shared<T> ----

namespace cuda_emulator {
template <typename Pointer>
struct Pointee;
template <typename T>
struct Pointee<T*> {
  using type = T;
};
template <typename T>
struct Pointee<Shared<T>> {
  using type = T;
};
template <typename Pointer>
using PointeeType = typename Pointee<Pointer>::type;
}  // namespace cuda_emulator

#define AMSTEL_ATOMIC(name, expression)                                               \
  template <typename Pointer, typename T = cuda_emulator::PointeeType<Pointer>>       \
  T name(Pointer pointer, std::type_identity_t<T> value) {                            \
    return cuda_emulator::update_atomically(                                          \
        pointer, [&]([[maybe_unused]] T old) { return static_cast<T>(expression); }); \
  }
AMSTEL_ATOMIC(atomicAdd, old + value)
AMSTEL_ATOMIC(atomicSub, old - value)
AMSTEL_ATOMIC(atomicMin, value < old ? value : old)
AMSTEL_ATOMIC(atomicMax, value > old ? value : old)
AMSTEL_ATOMIC(atomicAnd, old& value)
AMSTEL_ATOMIC(atomicOr, old | value)
AMSTEL_ATOMIC(atomicXor, old ^ value)
AMSTEL_ATOMIC(atomicExch, value)
#undef AMSTEL_ATOMIC
template <typename Pointer, typename T = cuda_emulator::PointeeType<Pointer>>
T atomicCAS(Pointer pointer, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cuda_emulator::update_atomically(pointer,
                                          [&](T old) { return old == expected ? value : old; });
}

// ---- Arithmetic ----

#define AMSTEL_MIN_MAX(Type)                                   \
  constexpr Type min(Type a, Type b) { return b < a ? b : a; } \
  constexpr Type max(Type a, Type b) { return a < b ? b : a; }
AMSTEL_MIN_MAX(int)
AMSTEL_MIN_MAX(unsigned)
AMSTEL_MIN_MAX(long)
AMSTEL_MIN_MAX(unsigned long)
AMSTEL_MIN_MAX(long long)
AMSTEL_MIN_MAX(unsigned long long)
#undef AMSTEL_MIN_MAX
inline float min(float a, float b) {
  return std::fmin(a, b);
}  // as on the GPU: a number wins over NaN
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __ffsll(long long x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }

// Conversions saturate and send NaN to zero, as the GPU's do.
namespace cuda_emulator {
template <typename Integer, typename Float>
Integer saturate(Float x) {
  using Limits = std::numeric_limits<Integer>;
  if (!(x == x)) return 0;
  if (x <= static_cast<Float>(Limits::min())) return Limits::min();
  if (x >= static_cast<Float>(Limits::max())) return Limits::max();
  return static_cast<Integer>(x);
}
}  // namespace cuda_emulator
inline int __float2int_rn(float x) { return cuda_emulator::saturate<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return cuda_emulator::saturate<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return cuda_emulator::saturate<int>(std::ceil(x)); }
inline int __float2int_rz(float x) { return cuda_emulator::saturate<int>(std::trunc(x)); }
inline unsigned __float2uint_rn(float x) {
  return cuda_emulator::saturate<unsigned>(std::nearbyint(x));
}
inline int __double2int_rn(double x) { return cuda_emulator::saturate<int>(std::nearbyint(x)); }
inline int __double2int_rd(double x) { return cuda_emulator::saturate<int>(std::floor(x)); }
inline int __double2int_rz(double x) { return cuda_emulator::saturate<int>(std::trunc(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __saturatef(float x) { return x > 0.0f ? std::fmin(x, 1.0f) : 0.0f; }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(double{x} * 3.14159265358979323846));
  *cosine = static_cast<float>(std::cos(double{x} * 3.14159265358979323846));
}
inline void sincospi(double x, double* sine, double* cosine) {
  const long double angle = static_cast<long double>(x) * 3.14159265358979323846L;
  *sine = static_cast<double>(std::sin(angle));
  *cosine = static_cast<double>(std::cos(angle));
}
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
#if !defined(__GLIBC__) || !__GLIBC_PREREQ(2, 42)  // newer ones have it
inline float rsqrtf(float x) { return static_cast<float>(1.0 / std::sqrt(double{x})); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
#endif

// What CUDA's half and bfloat16 headers leave to the device.
inline __half __hfma(__half a, __half b, __half c) {
  return __double2half(
      std::fma(double{__half2float(a)}, double{__half2float(b)}, double{__half2float(c)}));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __double2bfloat16(std::fma(double{__bfloat162float(a)}, double{__bfloat162float(b)},
                                    double{__bfloat162float(c)}));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}

template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}
template <typename T>
T __ldcg(const T* pointer) {
  return *pointer;
}
template <typename T>
T __ldcs(const T* pointer) {
  return *pointer;
}
template <typename T>
void __stcg(T* pointer, T value) {
  *pointer = value;
}
template <typename T>
void __stcs(T* pointer, T value) {
  *pointer = value;
}

// ---- Runtime: what launch wrappers call.  Host memory is the device's; streams are in order. ----

extern "C" {
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
// An imaginary device with few multiprocessors, so that persistent grids loop on small inputs too.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 2;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = cuda_emulator::Machine::kStaticBytes;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = cuda_emulator::Machine::kArenaBytes;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}
inline cudaError_t cudaMemsetAsync(void* pointer, int value, size_t count, cudaStream_t) {
  std::memset(pointer, value, count);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t count, cudaMemcpyKind,
                                   cudaStream_t) {
  std::memmove(target, source, count);
  return cudaSuccess;
}
}
template <typename Function>
cudaError_t cudaFuncSetAttribute(Function* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    cuda_emulator::machine.dynamic_limits[reinterpret_cast<const void*>(kernel)] =
        static_cast<size_t>(value);
  }
  return cudaSuccess;
}
