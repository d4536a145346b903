// Logistic function and hyperbolic tangent of vectors of float or double, from one polynomial.
//
// Both come from e^z - 1 = s p + (s - 1) with z = n ln 2 + r, |r| <= ln 2 / 2, s = 2^n and
// p = e^r - 1 by its Taylor series, so that nothing cancels near zero.  The error is at most 2
// units in the last place (tests/test_conv_lstm.py); results below the smallest normal number are
// 0. NaN stays NaN, infinities give the limits.  kShort is for values that go to 16 bits: a
// relative error of 4e-6, and a third less work.  Where a division of a vector takes as long as all
// the rest (16 floats at a time), it is a reciprocal, refined.
#pragma once
#include "cpu/kernels/vector.h"

namespace amstel::AMSTEL_ISA {

template <class S>
struct Exponential;
template <>
struct Exponential<float> {
  using Bits = uint32_t;
  static constexpr int kMantissa = 23, kBias = 127, kTerms = 7;
  static constexpr float kLog2e = 0x1.715476p+0f, kLn2High = 0x1.62e4p-1f,
                         kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kSmallest = -87.33654f;  // e^z is a normal number from here on
  static constexpr float kSaturated = 20.f;       // tanh(z / 2) rounds to 1
};
template <>
struct Exponential<double> {
  using Bits = uint64_t;
  static constexpr int kMantissa = 52, kBias = 1023, kTerms = 13;
  static constexpr double kLog2e = 0x1.71547652b82fep+0, kLn2High = 0x1.62e42feep-1,
                          kLn2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kSmallest = -708.39;
  static constexpr double kSaturated = 44.;
};

template <class S>
constexpr auto sign_bit = typename Exponential<S>::Bits(1) << (sizeof(S) * 8 - 1);

// The product v as it is: of two products in a sum the compiler fuses one or the other, and where
// code of the same meaning is compiled twice, not always the same.
template <class V>
inline __attribute__((always_inline)) V rounded(V v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__FMA__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

// f(m) for m in [0, M). Each is a long chain of operations; step by step for all M, the processor
// has M of them under way.
#if defined(__AVX512F__)
constexpr int kTogether = 4;
#else
constexpr int kTogether = 2;  // of 16 registers
#endif
template <int M, class F>
inline __attribute__((always_inline)) void each(const F& f) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) f(m);
}

// f<M, whole>(k) for all of a row: M vectors of T's sums from k on, the last of them whole or not.
template <class T, class F>
inline __attribute__((always_inline)) void vectors_of(int64_t count, const F& f) {
  constexpr int W = kVectorBytes / sizeof(Sum<T>), M = kTogether;
  int64_t k = 0;
  for (; k + M * W <= count; k += M * W) f.template operator()<M, true>(k);
  if (M > 2 && k + 2 * W <= count) f.template operator()<2, true>(k), k += 2 * W;
  for (; k < count; k += W) f.template operator()<1, false>(k);
}

// z = n ln 2 + r, s = 2^n, and q with e^r = 1 + r + r^2 (1/2 + r q).
template <class S, int W, int M, bool kShort>
struct Reduced {
  using E = Exponential<S>;
  static constexpr int kTerms = kShort ? 5 : E::kTerms;
  using V = Vector<S, W>;
  using U = Vector<typename E::Bits, W>;
  V r[M], s[M], q[M];

  inline __attribute__((always_inline)) explicit Reduced(const V (&z)[M]) {
    // Adding 1.5 * 2^mantissa rounds to an integer, which the lowest bits then hold.
    constexpr S magic = S(3ll << (E::kMantissa - 1));
    V shifted[M];
    each<M>([&](int m) { shifted[m] = z[m] * E::kLog2e + magic; });
    each<M>([&](int m) { q[m] = shifted[m] - magic; });
    each<M>([&](int m) { r[m] = z[m] - q[m] * E::kLn2High; });
    each<M>([&](int m) { r[m] = r[m] - q[m] * E::kLn2Low; });
    // The bits of `magic` are all above those that stay.
    each<M>([&](int m) {
      s[m] = (V)(((U)shifted[m] << E::kMantissa) + (typename E::Bits(E::kBias) << E::kMantissa));
    });
    S inverse = 1;  // of a factorial
    for (int k = 2; k <= kTerms; ++k) inverse /= S(k);
    each<M>([&](int m) { q[m] = V{} + inverse; });
#pragma GCC unroll 16
    for (int k = kTerms; k > 3; --k) {
      inverse *= S(k);
      each<M>([&](int m) { q[m] = q[m] * r[m] + inverse; });
    }
  }
  // e^r - 1
  inline __attribute__((always_inline)) V p(int m) const {
    return r[m] * r[m] * (r[m] * q[m] + S(0.5)) + r[m];
  }
};

#if defined(__AVX512F__)
template <class S, int W>
constexpr bool kRefines = __is_same(S, float) && W == 16;
#else
template <class S, int W>
constexpr bool kRefines = false;
#endif

// n / (d + lost), where kRefines: d normal, `lost` what d was rounded by.
template <bool kShort, class V>
inline __attribute__((always_inline)) V refined_quotient(V n, V d, [[maybe_unused]] V lost) {
#if defined(__AVX512F__)
  const V r = (V)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);  // 14 bits
  const V y = n * r;
  return y + (kShort ? n - d * y : (n - d * y) - lost * y) * r;
#else
  return n / d;
#endif
}

// In place, M vectors at once.
template <bool kShort, class S, int W, int M>
inline __attribute__((always_inline)) void sigmoids(Vector<S, W> (&x)[M]) {
  using V = Vector<S, W>;
  using U = Vector<typename Exponential<S>::Bits, W>;
  V e[M], y[M];
  each<M>([&](int m) { e[m] = (V)((U)x[m] | sign_bit<S>); });
  const Reduced<S, W, M, kShort> exp(e);
  each<M>([&](int m) {
    e[m] = e[m] < Exponential<S>::kSmallest ? V{} : exp.s[m] * exp.p(m) + exp.s[m];
  });
  each<M>([&](int m) { y[m] = x[m] < 0 ? e[m] : V{} + 1; });
  each<M>([&](int m) {
    const V d = e[m] + 1, n = y[m];
    if constexpr (kRefines<S, W>) {
      x[m] = refined_quotient<kShort>(n, d, e[m] - (d - 1));
    } else {
      const V quotient = n / d;
      // What d lost, e - (d - 1), comes back, over d once more: y or 1 - y.
      x[m] = kShort ? quotient
                    : quotient - quotient * (e[m] - (d - 1)) * (x[m] < 0 ? 1 - quotient : quotient);
    }
  });
}

template <bool kShort, class S, int W, int M>
inline __attribute__((always_inline)) void tanhs(Vector<S, W> (&x)[M]) {
  using V = Vector<S, W>;
  using U = Vector<typename Exponential<S>::Bits, W>;
  V z[M];
  each<M>([&](int m) { z[m] = (V)((U)x[m] & ~sign_bit<S>)*2; });
  each<M>([&](int m) {
    z[m] = z[m] > Exponential<S>::kSaturated ? V{} + Exponential<S>::kSaturated : z[m];
  });
  const Reduced<S, W, M, kShort> exp(z);
  each<M>([&](int m) {
    const U sign = (U)x[m] & sign_bit<S>;
    const V p = exp.p(m), r = exp.r[m];
    const V t = exp.s[m] * p + (exp.s[m] - 1);
    if constexpr (kShort && kRefines<S, W>) {
      x[m] = (V)((U)refined_quotient<true>(t, t + 2, t) | sign);
    } else if constexpr (kShort) {
      x[m] = (V)((U)(t / (t + 2)) | sign);
    } else {
      // t / (t + 2); where n = 0 as r/2 plus what is left, a fiftieth of it, for the last bit.
      const auto near = exp.s[m] == 1;
      const V half = r * S(0.5);
      const V rest = r * r * r * exp.q[m] - rounded(half * (p - r));
      const V d = t + 2, n = near ? rest : t;
      V exact;
      if constexpr (kRefines<S, W>) {
        exact = refined_quotient<false>(n, d, t - (d - 2));
      } else {
        const V y = n / d;
        // What d lost, t - (d - 2), comes back, over d once more: (1 - y) / 2.
        const V lost = t < 1024 ? t - (d - 2) : V{};  // further on 1 - y says nothing about d
        exact = y - y * lost * (S(0.5) - S(0.5) * y);
      }
      x[m] = (V)((U)(near ? exact + half : exact) | sign);
    }
  });
}

template <class S, int W, bool kShort = false>
inline __attribute__((always_inline)) Vector<S, W> sigmoid(Vector<S, W> x) {
  Vector<S, W> v[1] = {x};
  sigmoids<kShort, S, W, 1>(v);
  return v[0];
}

}  // namespace amstel::AMSTEL_ISA
