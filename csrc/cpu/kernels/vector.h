// Vectors of W elements by the compiler's own vector type, so that one source serves every
// instruction set; bfloat16 and float16 are widened on load and rounded to nearest even on store.
// No standard containers here or in any file that includes this one: their inline functions,
// compiled for one instruction set, could be the ones that the linker keeps for all.
#pragma once
#include <stdint.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace amstel::AMSTEL_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

template <class T>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};
template <class T>
using Sum = typename SumOf<T>::type;

template <class T, int W>
struct VectorOf {
  typedef T type __attribute__((vector_size(W * sizeof(T))));
};
template <class T, int W>
using Vector = typename VectorOf<T, W>::type;

template <class V, class P>
inline V load_raw(const P* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <int W>
inline Vector<float, W> widen(const bfloat16* p) {
  using U = Vector<uint32_t, W>;
  const U bits = __builtin_convertvector(load_raw<Vector<uint16_t, W>>(p), U) << 16;
  return (Vector<float, W>)bits;
}

template <int W>
inline Vector<float, W> widen(const float16* p) {
#if defined(__F16C__)
  if constexpr (W == 8) return (Vector<float, W>)_mm256_cvtph_ps(load_raw<__m128i>(p));
#endif
#if defined(__AVX512F__)
  if constexpr (W == 16)  // all lanes; the unmasked intrinsic warns of its own undefined source
    return (Vector<float, W>)_mm512_maskz_cvtph_ps(0xffff, load_raw<__m256i>(p));
#endif
  // Shift exponent and mantissa into place and scale by 2^112, which also normalises subnormals.
  using U = Vector<uint32_t, W>;
  using F = Vector<float, W>;
  const U h = __builtin_convertvector(load_raw<Vector<uint16_t, W>>(p), U);
  const U magnitude = h & 0x7fff;
  const F scaled = (F)(magnitude << 13) * 0x1p112f;
  const U special = (U)(magnitude >= 0x7c00) & 0x7f800000;
  return (F)((U)scaled | special | ((h & 0x8000) << 16));
}

template <int W, class T>
inline Vector<Sum<T>, W> load(const T* p) {
  if constexpr (sizeof(T) == 2)
    return widen<W>(p);
  else
    return load_raw<Vector<T, W>>(p);
}

template <class U>
inline U select(U mask, U yes, U no) {
  return (mask & yes) | (~mask & no);
}

template <int W>
inline Vector<uint32_t, W> narrow(Vector<float, W> v, bfloat16*) {
  using U = Vector<uint32_t, W>;
  const U bits = (U)v;
  const U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return select<U>((U)(v != v), U{} + 0x7fc0u, rounded);
}

template <int W>
inline Vector<uint32_t, W> narrow(Vector<float, W> v, float16*) {
  using U = Vector<uint32_t, W>;
  using F = Vector<float, W>;
  const U sign = (U)v & 0x80000000u;
  const U bits = (U)v ^ sign;
  // Subnormal results: an addition whose unit in the last place is the float16 subnormal step.
  const U magic = U{} + (((127 - 15) + (23 - 10) + 1) << 23);
  const U small = (U)((F)bits + (F)magic) - magic;
  const U normal = (bits + ((uint32_t)(15 - 127) << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
  const U large = select<U>((U)(bits > 0x7f800000u), U{} + 0x7e00u, U{} + 0x7c00u);
  const U finite = select<U>((U)(bits < (113u << 23)), small, normal);
  return select<U>((U)(bits >= ((127u + 16) << 23)), large, finite) | (sign >> 16);
}

template <int W, class T>
inline void store(T* p, Vector<Sum<T>, W> v) {
  if constexpr (sizeof(T) == 2) {
    const auto bits = __builtin_convertvector(narrow<W>(v, p), Vector<uint16_t, W>);
    __builtin_memcpy(p, &bits, sizeof(bits));
  } else {
    __builtin_memcpy(p, &v, sizeof(v));
  }
}

template <class T>
inline Sum<T> load_one(const T* p) {
  if constexpr (sizeof(T) == 2)
    return widen<1>(p)[0];
  else
    return *p;
}

// The sum over the lanes, always in the same order.
template <class S, int W>
inline S reduce(Vector<S, W> v) {
  if constexpr (W == 1) {
    return v[0];
  } else {
    Vector<S, W / 2> low, high;
    __builtin_memcpy(&low, &v, sizeof(low));
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof(low), sizeof(high));
    return reduce<S, W / 2>(low + high);
  }
}

// Calls f(tile, width, vectors) over a row of `features` elements: the widest vector that fits,
// tiles of at most kMax vectors held in registers. The last vector of a row overlaps the one before
// where the width does not divide: no masks, no scalar tail.
template <int W, int N>
struct Tile {
  static constexpr int width = W, vectors = N;
  int64_t begin;   // first feature
  int64_t last;    // offset of the last vector from begin
  int repeated;    // lanes at the front of the last vector that the one before has seen
  int64_t offset(int v) const { return v == N - 1 ? last : int64_t{W} * v; }
};

template <int W, int N, class F>
inline int64_t tile(int64_t features, int64_t done, const F& f) {
  const int64_t begin = done * W, end = begin + int64_t{W} * N;
  const int64_t over = end > features ? end - features : 0;
  // A tile of one overlapping vector starts early; its offset stays relative to `begin`.
  f(Tile<W, N>{begin, int64_t{W} * (N - 1) - over, static_cast<int>(over)});
  return done + N;
}

template <int W, int kMax, class F>
inline void tiles_of(int64_t features, const F& f) {
  const int64_t n = (features + W - 1) / W;
  int64_t done = 0;
  if constexpr (kMax >= 16)
    while (n - done >= 16) done = tile<W, 16>(features, done, f);
  if constexpr (kMax >= 8)
    while (n - done >= 8) done = tile<W, 8>(features, done, f);
  if constexpr (kMax >= 4)
    while (n - done >= 4) done = tile<W, 4>(features, done, f);
  while (n - done >= 2) done = tile<W, 2>(features, done, f);
  if (n - done == 1) tile<W, 1>(features, done, f);
}

template <class S, int kMax, int W = kVectorBytes / static_cast<int>(sizeof(S)), class F>
inline void for_tiles(int64_t features, const F& f) {
  constexpr bool widest = W == kVectorBytes / static_cast<int>(sizeof(S));
  if (features >= W) {
    tiles_of<W, widest ? kMax : 2>(features, f);
  } else if constexpr (W > 1) {
    for_tiles<S, kMax, W / 2>(features, f);
  }
}

// Zero in the lanes that an overlapping vector repeats, so that sums over a row count each once.
template <class S, int W>
inline Vector<S, W> drop_repeated(Vector<S, W> v, int repeated) {
  for (int l = 0; l < W; ++l) v[l] = l < repeated ? S(0) : v[l];
  return v;
}

}  // namespace amstel::AMSTEL_ISA
