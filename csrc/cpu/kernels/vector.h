// Vectors of W elements by the compiler's own vector type, so that one source serves every
// instruction set; bfloat16 and float16 are widened on load and rounded to nearest even on store.
// No standard containers here or in any file that includes this one: their inline functions,
// compiled for one instruction set, could be the ones that the linker keeps for all.
#pragma once
#include <stdint.h>

#include <utility>
#if defined(__SSE2__)
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

// x in all lanes, and not known as that: the compiler would multiply two of these as numbers and
// spread the product, which keeps a port of vectors busy.
template <class V, class S>
inline __attribute__((always_inline)) V spread(S x) {
  V v = x - V{};
#if defined(__AVX512F__)
  if constexpr (sizeof(V) >= 16) asm("" : "+v"(v));
#elif defined(__SSE2__)
  if constexpr (sizeof(V) >= 16) asm("" : "+x"(v));
#endif
  return v;
}

template <class U>
inline U select(U mask, U yes, U no) {
  return (mask & yes) | (~mask & no);
}

// bfloat16 in the upper half of each lane, rounded to nearest even, the lower half zero.
template <int W>
inline Vector<uint32_t, W> round_bfloat16(Vector<float, W> v) {
  using U = Vector<uint32_t, W>;
  const U bits = (U)v;
  const U rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return select<U>((U)(v != v), U{} + 0x7fc00000u, rounded) & 0xffff0000u;
}

template <int W>
inline Vector<float, W> widen(const float16* p) {
#if defined(__F16C__)
  if constexpr (W == 4) return (Vector<float, W>)_mm_cvtph_ps(_mm_loadl_epi64((const __m128i*)p));
  if constexpr (W == 8) return (Vector<float, W>)_mm256_cvtph_ps(load_raw<__m128i>(p));
#endif
#if defined(__AVX512F__)
  if constexpr (W == 16)  // all lanes; the unmasked intrinsic warns of its own undefined source
    return (Vector<float, W>)_mm512_maskz_cvtph_ps(0xffff, load_raw<__m256i>(p));
#endif
  // Shift exponent and mantissa into place and scale by 2^112, which also normalizes subnormals.
  using U = Vector<uint32_t, W>;
  using F = Vector<float, W>;
  const U h = __builtin_convertvector(load_raw<Vector<uint16_t, W>>(p), U);
  const U magnitude = h & 0x7fff;
  const F scaled = (F)(magnitude << 13) * 0x1p112f;
  const U special = (U)(magnitude >= 0x7c00) & 0x7f800000;
  return (F)((U)scaled | special | ((h & 0x8000) << 16));
}

template <int W>
inline void narrow(float16* p, Vector<float, W> v) {
#if defined(__F16C__)
  if constexpr (W == 4 || W == 8) {
    __m128i h;
    if constexpr (W == 4) h = _mm_cvtps_ph((__m128)v, _MM_FROUND_TO_NEAREST_INT);
    if constexpr (W == 8) h = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(p, &h, 2 * W);
    return;
  }
#endif
#if defined(__AVX512F__)
  if constexpr (W == 16) {
    const __m256i h = _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(p, &h, sizeof(h));
    return;
  }
#endif
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
  const U half = select<U>((U)(bits >= ((127u + 16) << 23)), large, finite) | (sign >> 16);
  const auto h = __builtin_convertvector(half, Vector<uint16_t, W>);
  __builtin_memcpy(p, &h, sizeof(h));
}

// A whole vector to where a boundary of one is, past the caches: for what is larger than they are
// and written once. stream_end() comes before anybody else may read.
template <class V>
inline void stream(void* p, V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) return _mm512_stream_ps(static_cast<float*>(p), (__m512)v);
#endif
#if defined(__AVX__)
  if constexpr (sizeof(V) == 32) return _mm256_stream_ps(static_cast<float*>(p), (__m256)v);
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16) return _mm_stream_ps(static_cast<float*>(p), (__m128)v);
#endif
  __builtin_memcpy(p, &v, sizeof(v));
}
inline void stream_end() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// What comes 2 KB later: the processor fetches ahead within a page, and arithmetic that takes as
// long as the memory would wait at the next one.
template <class T>
inline __attribute__((always_inline)) void fetch_ahead(const T* p) {
  __builtin_prefetch(p + 2048 / sizeof(T));
}

// W consecutive elements as sums, lane by lane.
template <int W, class T>
inline Vector<Sum<T>, W> load_wide(const T* p) {
  if constexpr (__is_same(T, bfloat16)) {
    using U = Vector<uint32_t, W>;
    return (Vector<float, W>)(__builtin_convertvector(load_raw<Vector<uint16_t, W>>(p), U) << 16);
  } else if constexpr (__is_same(T, float16)) {
    return widen<W>(p);
  } else {
    return load_raw<Vector<T, W>>(p);
  }
}

template <int W, class T>
inline void store_wide(T* p, Vector<Sum<T>, W> v) {
  if constexpr (__is_same(T, bfloat16)) {
    const auto h = __builtin_convertvector(round_bfloat16<W>(v) >> 16, Vector<uint16_t, W>);
    __builtin_memcpy(p, &h, sizeof(h));
  } else if constexpr (__is_same(T, float16)) {
    narrow<W>(p, v);
  } else {
    __builtin_memcpy(p, &v, sizeof(v));
  }
}

// The same past the caches, where no element is narrower than the sums.
template <int W, class T>
inline void stream_wide(T* p, Vector<Sum<T>, W> v) {
  if constexpr (__is_same(T, Sum<T>))
    stream(p, v);
  else
    store_wide<W>(p, v);
}

// The first n elements at p; the rest is zero.
template <class T, int W>
inline Vector<Sum<T>, W> load_wide(const T* p, int64_t n) {
  if (n >= W) [[likely]]
    return load_wide<W>(p);
#if defined(__AVX512F__)
  if constexpr (__is_same(T, float) && W == 16)
    return (Vector<float, W>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << n) - 1), p);
#endif
  T part[W] = {};
  __builtin_memcpy(part, p, n * sizeof(T));
  return load_wide<W>(part);
}

template <class T, int W>
inline void store_wide(T* p, Vector<Sum<T>, W> v, int64_t n) {
  if (n >= W) [[likely]]
    return store_wide<W>(p, v);
#if defined(__AVX512F__)
  if constexpr (__is_same(T, float) && W == 16)
    return _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1 << n) - 1), (__m512)v);
#endif
  T part[W];
  store_wide<W>(part, v);
  __builtin_memcpy(p, part, n * sizeof(T));
}

template <int kFrom, class V, int... I>
inline auto lanes_from(V v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (kFrom + I)...);
}

// The sum over the lanes, always in the same order.
template <class S, int W>
inline S reduce(Vector<S, W> v) {
  if constexpr (W == 1) {
    return v[0];
  } else if constexpr (W == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, W / 2> half;
    return reduce<S, W / 2>(lanes_from<0>(v, half) + lanes_from<W / 2>(v, half));
  }
}

// E consecutive elements of T in registers, as sums. bfloat16 comes as two vectors, the even and
// the odd elements: widening is then a shift and a mask of 32-bit lanes, and no lane changes place.
template <class T, int E>
struct Pack {
  static constexpr bool kPaired = __is_same(T, bfloat16) && E > 1;
  static constexpr int K = kPaired ? 2 : 1, W = E / K;
  using S = Sum<T>;
  using V = Vector<S, W>;
  V v[K];

  static Pack load(const T* p) {
    if constexpr (kPaired) {
      const auto both = load_raw<Vector<uint32_t, W>>(p);
      return {{(V)(both << 16), (V)(both & 0xffff0000u)}};
    } else if constexpr (__is_same(T, bfloat16)) {
      return {{(V)(Vector<uint32_t, 1>{uint32_t{p->bits} << 16})}};
    } else if constexpr (__is_same(T, float16)) {
      return {{widen<W>(p)}};
    } else {
      return {{load_raw<V>(p)}};
    }
  }

  void store(T* p) const {
    if constexpr (kPaired) {
      const auto both = (round_bfloat16<W>(v[0]) >> 16) | round_bfloat16<W>(v[1]);
      __builtin_memcpy(p, &both, sizeof(both));
    } else if constexpr (__is_same(T, bfloat16)) {
      p->bits = static_cast<uint16_t>(round_bfloat16<1>(v[0])[0] >> 16);
    } else if constexpr (__is_same(T, float16)) {
      narrow<W>(p, v[0]);
    } else {
      __builtin_memcpy(p, &v[0], sizeof(V));
    }
  }

  // The same past the caches, where `store` writes a whole vector.
  void stream(T* p) const {
    if constexpr (kPaired) {
      AMSTEL_ISA::stream(p, (round_bfloat16<W>(v[0]) >> 16) | round_bfloat16<W>(v[1]));
    } else if constexpr (__is_same(T, S)) {
      AMSTEL_ISA::stream(p, v[0]);
    } else {
      store(p);
    }
  }

  void add(const Pack& o) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) v[k] += o.v[k];
  }
  void add(S c, const Pack& o) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) v[k] += c * o.v[k];
  }
  void scale(S c) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) v[k] *= c;
  }
  // Zero where `sign` is not positive; NaN passes.
  void keep_positive(const Pack& sign) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) v[k] = sign.v[k] <= 0 ? V{} : v[k];
  }
  // Zero in the first `n` elements.
  void drop(int n) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k)
      for (int l = 0; l < W; ++l) v[k][l] = l * K + k < n ? S(0) : v[k][l];
  }
};

template <class T, int E, int N>
inline Sum<T> inner(const Pack<T, E>* a, const Pack<T, E>* b) {
  using P = Pack<T, E>;
  typename P::V d{};
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
    for (int k = 0; k < P::K; ++k) d += a[n].v[k] * b[n].v[k];
  return reduce<typename P::S, P::W>(d);
}

template <class T>
inline Sum<T> load_one(const T* p) {
  if constexpr (sizeof(T) == 2)
    return Pack<T, 1>::load(p).v[0][0];
  else
    return *p;
}

// Calls f(tile) over a row of `features` elements of T: the widest pack that fits, tiles of at most
// kMax packs held in registers. The last pack of a row overlaps the one before where the width does
// not divide: no masks, no scalar tail.
template <int E, int N>
struct Tile {
  static constexpr int width = E, packs = N;
  int64_t begin;  // first feature
  int64_t last;   // offset of the last pack from begin, negative where a lone pack overlaps
  int repeated;   // elements at the front of the last pack that the one before has seen
  int64_t offset(int n) const { return n == N - 1 ? last : int64_t{E} * n; }
};

template <int E, int N, class F>
inline int64_t tile(int64_t features, int64_t done, const F& f) {
  const int64_t begin = done * E, end = begin + int64_t{E} * N;
  const int64_t over = end > features ? end - features : 0;
  f(Tile<E, N>{begin, int64_t{E} * (N - 1) - over, static_cast<int>(over)});
  return done + N;
}

template <int E, int kMax, class F>
inline void tiles_of(int64_t features, const F& f) {
  const int64_t n = (features + E - 1) / E;
  int64_t done = 0;
  if constexpr (kMax >= 16)
    while (n - done >= 16) done = tile<E, 16>(features, done, f);
  if constexpr (kMax >= 8)
    while (n - done >= 8) done = tile<E, 8>(features, done, f);
  if constexpr (kMax >= 4)
    while (n - done >= 4) done = tile<E, 4>(features, done, f);
  while (n - done >= 2) done = tile<E, 2>(features, done, f);
  if (n - done == 1) tile<E, 1>(features, done, f);
}

// The most elements that a Pack of T holds, and how many vectors that takes.
template <class T>
constexpr int kPackWidth = kVectorBytes / sizeof(Sum<T>) * (__is_same(T, bfloat16) ? 2 : 1);

// `kVectors` bounds the vectors of a tile.
template <class T, int kVectors, int E = kPackWidth<T>, class F>
inline void for_tiles(int64_t features, const F& f) {
  if (features >= E) {
    tiles_of<E, E == kPackWidth<T> ? kVectors / Pack<T, E>::K : 2>(features, f);
  } else if constexpr (E > 1) {
    for_tiles<T, kVectors, E / 2>(features, f);
  }
}

}  // namespace amstel::AMSTEL_ISA
