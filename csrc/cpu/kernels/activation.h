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

// z = n ln 2 + r, s = 2^n, and q with e^r = 1 + r + r^2 (1/2 + r q).
template <class S, int W, bool kShort>
struct Reduced {
  using E = Exponential<S>;
  static constexpr int kTerms = kShort ? 5 : E::kTerms;
  using V = Vector<S, W>;
  using U = Vector<typename E::Bits, W>;
  V r, s, q;

  inline __attribute__((always_inline)) explicit Reduced(V z) {
    // Adding 1.5 * 2^mantissa rounds to an integer, which the lowest bits then hold.
    constexpr S magic = S(3ll << (E::kMantissa - 1));
    const V shifted = z * E::kLog2e + magic;
    const V n = shifted - magic;
    r = (z - n * E::kLn2High) - n * E::kLn2Low;
    // The bits of `magic` are all above those that stay.
    s = (V)(((U)shifted << E::kMantissa) + (typename E::Bits(E::kBias) << E::kMantissa));
    S inverse = 1;  // of a factorial
    for (int k = 2; k <= kTerms; ++k) inverse /= S(k);
    q = V{} + inverse;
#pragma GCC unroll 16
    for (int k = kTerms; k > 3; --k) {
      inverse *= S(k);
      q = q * r + inverse;
    }
  }
  // e^r - 1
  inline __attribute__((always_inline)) V p() const { return r * r * (r * q + S(0.5)) + r; }
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

template <class S, int W, bool kShort = false>
inline __attribute__((always_inline)) Vector<S, W> sigmoid(Vector<S, W> x) {
  using V = Vector<S, W>;
  using U = Vector<typename Exponential<S>::Bits, W>;
  const V z = (V)((U)x | sign_bit<S>);
  const Reduced<S, W, kShort> exp(z);
  const V e = z < Exponential<S>::kSmallest ? V{} : exp.s * exp.p() + exp.s;
  const V d = e + 1, n = x < 0 ? e : V{} + 1;
  if constexpr (kRefines<S, W>) return refined_quotient<kShort>(n, d, e - (d - 1));
  const V y = n / d;
  if constexpr (kShort) return y;
  // What d lost, e - (d - 1), comes back, over d once more: y or 1 - y.
  return y - y * (e - (d - 1)) * (x < 0 ? 1 - y : y);
}

template <class S, int W, bool kShort = false>
inline __attribute__((always_inline)) Vector<S, W> tanh(Vector<S, W> x) {
  using V = Vector<S, W>;
  using U = Vector<typename Exponential<S>::Bits, W>;
  const U sign = (U)x & sign_bit<S>;
  V z = (V)((U)x ^ sign) * 2;
  z = z > Exponential<S>::kSaturated ? V{} + Exponential<S>::kSaturated : z;
  const Reduced<S, W, kShort> exp(z);
  const V p = exp.p(), r = exp.r;
  const V t = exp.s * p + (exp.s - 1);
  if constexpr (kShort && kRefines<S, W>) return (V)((U)refined_quotient<true>(t, t + 2, t) | sign);
  if constexpr (kShort) return (V)((U)(t / (t + 2)) | sign);
  // t / (t + 2); where n = 0 as r/2 plus what is left, a fiftieth of it, for the last bit.
  const auto near = exp.s == 1;
  const V half = r * S(0.5);
  const V rest = r * r * r * exp.q - half * (p - r);
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
  return (V)((U)(near ? exact + half : exact) | sign);
}

}  // namespace amstel::AMSTEL_ISA
