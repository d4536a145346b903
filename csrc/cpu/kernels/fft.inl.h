// Fourier transforms of any length, one a lane; torch-free.
//
// Data flow.  Stockham's algorithm: no bit reversal; every stage, one a prime factor (a pair of
// twos is one), reads all of a buffer and writes all of another, 2 * kVectorBytes an element each,
// and its twiddle factors from a table. Both buffers are small enough for a cache. A vector holds
// the same element of as many transforms as it has lanes, real and imaginary part in two vectors,
// so nothing in here moves between lanes. Radices are 4, 2, 3, 5 and any other odd prime, which is
// summed up directly, with sums and differences of opposite elements: p - 1 real multiplications an
// element. A length with a larger prime is Bluestein's convolution, by two transforms of at least
// twice the length. The inverse swaps real and imaginary parts. No result is scaled.
//
// Source: C. Van Loan, Computational Frameworks for the Fast Fourier Transform, 1992, sections 1.7
// and 4.2.3.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/vector.h"

namespace amstel::AMSTEL_ISA {

template <class S>
constexpr int kFftLanes = kVectorBytes / sizeof(S);

template <class S>
struct Fft {
  static constexpr int L = kFftLanes<S>;
  using V = Vector<S, L>;
  struct Complex {
    V re, im;
  };

  const cpu::FftPlan& plan;
  int re;                // where the real part lies: 0, or 1 in the inverse
  int64_t count, apart;  // of a stage: m transforms of the radix, s numbers each

  const S* twiddle(int64_t k) const { return static_cast<const S*>(plan.twiddles) + 2 * k; }

  inline __attribute__((always_inline)) Complex load(const V* p) const {
    return {p[re], p[1 - re]};
  }
  inline __attribute__((always_inline)) void store(V* p, V a, V b) const {
    p[re] = a, p[1 - re] = b;
  }
  // z times the twiddle factor
  inline __attribute__((always_inline)) void store(V* p, Complex z, const S* t) const {
    store(p, z.re * t[0] - z.im * t[1], z.re * t[1] + z.im * t[0]);
  }

  // f(in, out, p) for every number; element i of its transform is at in + 2 i count apart, result k
  // goes to out + 2 k apart, times the twiddle factor number k p apart.
  template <int R, class F>
  inline __attribute__((always_inline)) void each(const V* in, V* out, const F& f) const {
    for (int64_t p = 0; p < count; ++p)
      for (int64_t q = 0; q < apart; ++q)
        f(in + 2 * (q + apart * p), out + 2 * (q + apart * R * p), p);
  }

  void radix2(const V* in, V* out) const {
    each<2>(in, out, [&](const V* x, V* y, int64_t p) __attribute__((always_inline)) {
      const Complex a = load(x), b = load(x + 2 * apart * count);
      store(y, a.re + b.re, a.im + b.im);
      store(y + 2 * apart, Complex{a.re - b.re, a.im - b.im}, twiddle(p * apart));
    });
  }

  void radix3(const V* in, V* out) const {
    constexpr S sine = S(0.86602540378443864676);
    each<3>(in, out, [&](const V* x, V* y, int64_t p) __attribute__((always_inline)) {
      const int64_t step = 2 * apart * count;
      const Complex a = load(x), b = load(x + step), c = load(x + 2 * step);
      const V sum_re = b.re + c.re, sum_im = b.im + c.im;
      const V d_re = sine * (b.re - c.re), d_im = sine * (b.im - c.im);
      const V m_re = a.re - S(0.5) * sum_re, m_im = a.im - S(0.5) * sum_im;
      store(y, a.re + sum_re, a.im + sum_im);
      store(y + 2 * apart, Complex{m_re + d_im, m_im - d_re}, twiddle(p * apart));
      store(y + 4 * apart, Complex{m_re - d_im, m_im + d_re}, twiddle(2 * p * apart));
    });
  }

  void radix4(const V* in, V* out) const {
    each<4>(in, out, [&](const V* x, V* y, int64_t p) __attribute__((always_inline)) {
      const int64_t step = 2 * apart * count;
      const Complex a = load(x), b = load(x + step), c = load(x + 2 * step), d = load(x + 3 * step);
      const V s_re = a.re + c.re, s_im = a.im + c.im, t_re = b.re + d.re, t_im = b.im + d.im;
      const V u_re = a.re - c.re, u_im = a.im - c.im, v_re = b.re - d.re, v_im = b.im - d.im;
      store(y, s_re + t_re, s_im + t_im);
      store(y + 2 * apart, Complex{u_re + v_im, u_im - v_re}, twiddle(p * apart));
      store(y + 4 * apart, Complex{s_re - t_re, s_im - t_im}, twiddle(2 * p * apart));
      store(y + 6 * apart, Complex{u_re - v_im, u_im + v_re}, twiddle(3 * p * apart));
    });
  }

  void radix5(const V* in, V* out) const {
    constexpr S c1 = S(0.30901699437494742410), c2 = S(-0.80901699437494742410);
    constexpr S s1 = S(0.95105651629515357212), s2 = S(0.58778525229247312917);
    each<5>(in, out, [&](const V* x, V* y, int64_t p) __attribute__((always_inline)) {
      const int64_t step = 2 * apart * count;
      const Complex a = load(x), b = load(x + step), c = load(x + 2 * step), d = load(x + 3 * step),
                    e = load(x + 4 * step);
      const V be_re = b.re + e.re, be_im = b.im + e.im, cd_re = c.re + d.re, cd_im = c.im + d.im;
      const V eb_re = b.re - e.re, eb_im = b.im - e.im, dc_re = c.re - d.re, dc_im = c.im - d.im;
      const V m1_re = a.re + c1 * be_re + c2 * cd_re, m1_im = a.im + c1 * be_im + c2 * cd_im;
      const V m2_re = a.re + c2 * be_re + c1 * cd_re, m2_im = a.im + c2 * be_im + c1 * cd_im;
      const V n1_re = s1 * eb_re + s2 * dc_re, n1_im = s1 * eb_im + s2 * dc_im;
      const V n2_re = s2 * eb_re - s1 * dc_re, n2_im = s2 * eb_im - s1 * dc_im;
      store(y, a.re + be_re + cd_re, a.im + be_im + cd_im);
      store(y + 2 * apart, Complex{m1_re + n1_im, m1_im - n1_re}, twiddle(p * apart));
      store(y + 4 * apart, Complex{m2_re + n2_im, m2_im - n2_re}, twiddle(2 * p * apart));
      store(y + 6 * apart, Complex{m2_re - n2_im, m2_im + n2_re}, twiddle(3 * p * apart));
      store(y + 8 * apart, Complex{m1_re - n1_im, m1_im + n1_re}, twiddle(4 * p * apart));
    });
  }

  // kOutputs pairs of results (k, r - k) at once, so that a sum or difference is loaded once.
  template <int kOutputs>
  inline __attribute__((always_inline)) void pairs(const V* even, const V* odd, const Complex& a,
                                                   const S* cosine, const S* sine, int64_t half,
                                                   int64_t k, int64_t radix, V* y,
                                                   int64_t p) const {
    V c_re[kOutputs], c_im[kOutputs], d_re[kOutputs], d_im[kOutputs];
    for (int o = 0; o < kOutputs; ++o) c_re[o] = a.re, c_im[o] = a.im, d_re[o] = d_im[o] = V{};
    for (int64_t j = 0; j < half; ++j) {
      const V e_re = even[2 * j], e_im = even[2 * j + 1], o_re = odd[2 * j], o_im = odd[2 * j + 1];
#pragma GCC unroll 4
      for (int o = 0; o < kOutputs; ++o) {
        const S c = cosine[(k + o) * half + j], s = sine[(k + o) * half + j];
        c_re[o] += c * e_re, c_im[o] += c * e_im;
        d_re[o] += s * o_re, d_im[o] += s * o_im;
      }
    }
    for (int o = 0; o < kOutputs; ++o) {
      const int64_t low = k + o + 1, high = radix - low;
      store(y + 2 * low * apart, Complex{c_re[o] + d_im[o], c_im[o] - d_re[o]},
            twiddle(low * p * apart));
      store(y + 2 * high * apart, Complex{c_re[o] - d_im[o], c_im[o] + d_re[o]},
            twiddle(high * p * apart));
    }
  }

  void radix_prime(const V* in, V* out, int64_t radix, const S* table) const {
    const int64_t half = (radix - 1) / 2;
    const S *const cosine = table, *const sine = table + half * half;
    V even[cpu::kMaxPrime], odd[cpu::kMaxPrime];  // 2 half numbers each
    const int64_t step = 2 * apart * count;
    for (int64_t p = 0; p < count; ++p)
      for (int64_t q = 0; q < apart; ++q) {
        const V* const x = in + 2 * (q + apart * p);
        V* const y = out + 2 * (q + apart * radix * p);
        const Complex a = load(x);
        V sum_re = a.re, sum_im = a.im;
        for (int64_t j = 0; j < half; ++j) {
          const Complex b = load(x + (j + 1) * step), c = load(x + (radix - 1 - j) * step);
          even[2 * j] = b.re + c.re, even[2 * j + 1] = b.im + c.im;
          odd[2 * j] = b.re - c.re, odd[2 * j + 1] = b.im - c.im;
          sum_re += even[2 * j], sum_im += even[2 * j + 1];
        }
        store(y, sum_re, sum_im);
        int64_t k = 0;
        for (; k + 4 <= half; k += 4) pairs<4>(even, odd, a, cosine, sine, half, k, radix, y, p);
        for (; k < half; ++k) pairs<1>(even, odd, a, cosine, sine, half, k, radix, y, p);
      }
  }

  // Transforms `in`, which stays as it is, by way of a and b; returns the one with the result.
  V* run(const V* in, V* a, V* b) {
    V* out = a;
    int64_t left = plan.length;
    apart = 1;
    for (int64_t stage = 0; stage < plan.stages; ++stage) {
      const int64_t radix = plan.radix[stage];
      count = left / radix;
      if (radix == 4)
        radix4(in, out);
      else if (radix == 2)
        radix2(in, out);
      else if (radix == 3)
        radix3(in, out);
      else if (radix == 5)
        radix5(in, out);
      else
        radix_prime(in, out, radix, static_cast<const S*>(plan.table[stage]));
      left = count;
      apart *= radix;
      in = out;
      out = out == a ? b : a;
    }
    return const_cast<V*>(in);
  }
};

// v[k] = from[k] times number k of a table (interleaved), for `count` numbers; real parts lie at
// from[from_re] and v[re].
template <class S, class V>
inline void multiply(const V* from, int from_re, const void* table, int64_t count, V* v, int re) {
  const S* t = static_cast<const S*>(table);
  for (int64_t k = 0; k < 2 * count; k += 2) {
    const V x = from[k + from_re], y = from[k + 1 - from_re];
    v[k + re] = x * t[k] - y * t[k + 1];
    v[k + 1 - re] = x * t[k + 1] + y * t[k];
  }
}

// Bluestein: with w[j] = e^(-pi i j^2 / n), result k is w[k] sum_j (x[j] w[j]) conj(w[k - j]).
template <class S>
inline Vector<S, kFftLanes<S>>* chirped(const cpu::FftPlan& plan, int re,
                                        const Vector<S, kFftLanes<S>>* in,
                                        Vector<S, kFftLanes<S>>* a, Vector<S, kFftLanes<S>>* b) {
  using V = Vector<S, kFftLanes<S>>;
  multiply<S>(in, re, plan.chirp, plan.size, a, 0);
  for (int64_t k = 2 * plan.size; k < 2 * plan.length; ++k) a[k] = V{};
  V* const there = Fft<S>{plan, 0, 0, 0}.run(a, b, a);
  multiply<S>(there, 0, plan.spectrum, plan.length, there, 0);
  V* const back = Fft<S>{plan, 1, 0, 0}.run(there, there == a ? b : a, there);
  multiply<S>(back, 0, plan.chirp, plan.size, back, re);
  return back;
}

// Transforms `in`, which may be b, by way of a and b, with room for 2 plan.length vectors each;
// returns the one with the result. `plan.size` = 1 returns `in` itself, which the callers own.
template <class S>
inline Vector<S, kFftLanes<S>>* fft(const cpu::FftPlan& plan, bool inverse,
                                    Vector<S, kFftLanes<S>>* in, Vector<S, kFftLanes<S>>* a,
                                    Vector<S, kFftLanes<S>>* b) {
  if (plan.chirp) return chirped<S>(plan, inverse ? 1 : 0, in, a, b);
  return Fft<S>{plan, inverse ? 1 : 0, 0, 0}.run(in, a, b);
}

}  // namespace amstel::AMSTEL_ISA
