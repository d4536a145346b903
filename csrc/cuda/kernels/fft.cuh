// Fourier transforms of a few numbers, each in the registers of a thread, and the plan by which a
// longer one is made of them in shared memory; torch-free.
//
// A transform of n = R_1 R_2 ... R_m numbers takes m passes, in place. Pass s takes blocks of
// n / (R_1 ... R_(s-1)) numbers: a thread has R_s of them, equally far apart, in its registers,
// transforms them, multiplies them by twiddle factors and puts them back where they were, so that
// each block becomes R_s smaller ones, and the frequencies end in the order of reversed digits
// (decimation in frequency). Nothing sorts them: who wants to multiply every frequency by a weight
// sorts the weights, and the same passes the other way round, each the transpose of one of these,
// transform from that order back to the natural one (decimation in time). The matrix of the
// transform is its own transpose, so the way back is again a forward transform; an inverse is one
// between two conjugations.
//
// Source: C. Van Loan, Computational Frameworks for the Fast Fourier Transform, 1992, chapters 1
// and 2.
#pragma once

#include <utility>

#include "common/numbers.h"
#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

// ---- Complex numbers ----

template <typename S>
struct alignas(2 * sizeof(S)) Complex {
  S re, im;
};

template <typename S>
__device__ __forceinline__ Complex<S> operator+(const Complex<S>& a, const Complex<S>& b) {
  return {a.re + b.re, a.im + b.im};
}
template <typename S>
__device__ __forceinline__ Complex<S> operator-(const Complex<S>& a, const Complex<S>& b) {
  return {a.re - b.re, a.im - b.im};
}
template <typename S>
__device__ __forceinline__ Complex<S> operator*(const Complex<S>& a, const Complex<S>& b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <typename S>
__device__ __forceinline__ Complex<S> conj(const Complex<S>& a) {
  return {a.re, -a.im};
}

// One access of a complex number that lies as two real ones.
template <typename S>
__device__ __forceinline__ Complex<S> load_complex(const S* pointer) {
  const Vector<S, 2> pair = load_vector<2>(pointer);
  return {pair[0], pair[1]};
}
template <typename S>
__device__ __forceinline__ void store_complex(S* pointer, const Complex<S>& z) {
  store_row(pointer, Vector<S, 2>{{z.re, z.im}});
}

// ---- Turns ----

// Cosine and sine of k / n of a turn, 0 <= k < n, for the compiler: Taylor's series within an
// eighth of a turn.
struct Turn {
  double cosine, sine;
  AMSTEL_HOST_DEVICE constexpr Turn(int k, int n) : cosine(0), sine(0) {
    const int quarter = (4 * k + n / 2) / n;
    const double angle = 1.57079632679489661923 * (4 * k - quarter * n) / n;
    double term = 1, c = 0, s = 0;
    for (int i = 0; i < 20; ++i) {
      if (i % 2)
        s += i % 4 == 1 ? term : -term;
      else
        c += i % 4 == 0 ? term : -term;
      term *= angle / (i + 1);
    }
    cosine = quarter % 4 == 0 ? c : quarter % 4 == 1 ? -s : quarter % 4 == 2 ? -c : s;
    sine = quarter % 4 == 0 ? s : quarter % 4 == 1 ? c : quarter % 4 == 2 ? -s : -c;
  }
};

// Of all k / N.
template <int N>
struct Turns {
  double cosine[N], sine[N];
  AMSTEL_HOST_DEVICE constexpr Turns() : cosine(), sine() {
    for (int k = 0; k < N; ++k) {
      const Turn turn(k, N);
      cosine[k] = turn.cosine;
      sine[k] = turn.sine;
    }
  }
};

// e^(-2 pi i k / n) at run time, 0 <= k < n; `half` is 1 / (2 n).
template <typename S>
__device__ __forceinline__ Complex<S> twiddle(int k, int n, S half) {
  const int quarter = (8 * k >= n) + (8 * k >= 3 * n) + (8 * k >= 5 * n) + (8 * k >= 7 * n);
  const S half_turns = static_cast<S>(4 * k - quarter * n) * half;  // at most 1 / 4
  S s, c;
  if constexpr (sizeof(S) == 8)
    sincospi(half_turns, &s, &c);
  else
    sincospif(half_turns, &s, &c);
  const S re = quarter & 1 ? s : c, im = quarter & 1 ? c : s;
  return {(quarter + 1) & 2 ? -re : re, quarter & 2 ? im : -im};
}

// ---- Transforms in registers: of natural order, to natural order; every index is a constant ----

AMSTEL_HOST_DEVICE constexpr int smallest_factor(int n) {
  int factor = 2;
  while (n % factor) ++factor;
  return factor;
}
// The multiple of a that is 1 modulo b, or 0 where they have a common factor.
AMSTEL_HOST_DEVICE constexpr int unit(int a, int b) {
  for (int k = a; k < a * b; k += a)
    if (k % b == 1) return k;
  return 0;
}

// An odd prime: sums and differences of opposite numbers, and R - 1 multiplications a number. Real
// parts come before imaginary ones, so that half of what they are made from is done with early.
template <int R, typename S>
__device__ __forceinline__ void dft_prime(Complex<S> (&z)[R]) {
  constexpr int kHalf = R / 2;
  constexpr Turns<R> turns;
  Complex<S> even[kHalf], odd[kHalf];
  const Complex<S> first = z[0];
#pragma unroll
  for (int j = 0; j < kHalf; ++j) {
    even[j] = z[j + 1] + z[R - 1 - j];
    odd[j] = z[j + 1] - z[R - 1 - j];
    z[0] = z[0] + even[j];
  }
#pragma unroll
  for (int k = 1; k <= kHalf; ++k) {
    S c = first.re, s = 0;
#pragma unroll
    for (int j = 0; j < kHalf; ++j) {
      c += static_cast<S>(turns.cosine[k * (j + 1) % R]) * even[j].re;
      s += static_cast<S>(turns.sine[k * (j + 1) % R]) * odd[j].im;
    }
    z[k].re = c + s;
    z[R - k].re = c - s;
  }
#pragma unroll
  for (int k = 1; k <= kHalf; ++k) {
    S c = first.im, s = 0;
#pragma unroll
    for (int j = 0; j < kHalf; ++j) {
      c += static_cast<S>(turns.cosine[k * (j + 1) % R]) * even[j].im;
      s += static_cast<S>(turns.sine[k * (j + 1) % R]) * odd[j].re;
    }
    z[k].im = c - s;
    z[R - k].im = c + s;
  }
}

// R = A B without a common factor needs no twiddle factors in between, by the Chinese remainder
// theorem; else the quarter turns among them cost nothing.
template <int R, typename S>
__device__ __forceinline__ void dft(Complex<S> (&z)[R]) {
  if constexpr (R == 2) {
    const Complex<S> other = z[1];
    z[1] = z[0] - other;
    z[0] = z[0] + other;
  } else if constexpr (R > 2 && smallest_factor(R) == R) {
    dft_prime<R>(z);
  } else if constexpr (R > 2) {
    constexpr int A = R % 4 == 0 && R > 4 ? 4 : smallest_factor(R), B = R / A;
    // Numbers i B + j go in and k + A l come out; without a common factor i B + j A go in, and come
    // out at what is k modulo A and l modulo B.
    constexpr bool kCoprime = unit(B, A) != 0;
    constexpr int kIn = kCoprime ? A : 1;
    constexpr int kFirst = kCoprime ? unit(B, A) : 1, kSecond = kCoprime ? unit(A, B) : A;
    constexpr Turns<R> turns;
    Complex<S> between[A][B];
#pragma unroll
    for (int j = 0; j < B; ++j) {
      Complex<S> part[A];
#pragma unroll
      for (int i = 0; i < A; ++i) part[i] = z[(i * B + j * kIn) % R];
      dft<A>(part);
#pragma unroll
      for (int i = 0; i < A; ++i) {
        const int turn = kCoprime ? 0 : i * j;
        const Complex<S> p = part[i];
        if (turn == 0)
          between[i][j] = p;
        else if (4 * turn == R)
          between[i][j] = {p.im, -p.re};
        else if (2 * turn == R)
          between[i][j] = {-p.re, -p.im};
        else
          between[i][j] =
              p * Complex<S>{static_cast<S>(turns.cosine[turn]), static_cast<S>(-turns.sine[turn])};
      }
    }
#pragma unroll
    for (int i = 0; i < A; ++i) {
      dft<B>(between[i]);
#pragma unroll
      for (int j = 0; j < B; ++j) z[(i * kFirst + j * kSecond) % R] = between[i][j];
    }
  }
}

// ---- Plans ----

// As large as the registers allow: those of the last pass, whose numbers are neighbors, in order,
// and of the others, which need registers for addresses too.
using DoubleRadices =
    std::integer_sequence<int, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20>;
using FloatRadices = std::integer_sequence<int, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                           16, 17, 19, 20, 23>;
template <typename S>
using Radices = std::conditional_t<sizeof(S) == 8, DoubleRadices, FloatRadices>;
using OuterRadices = std::integer_sequence<int, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16>;
template <typename S>
constexpr int kLargestRadix = sizeof(S) == 8 ? 20 : 23;
constexpr int kLargestOuter = 16;

// f(std::integral_constant<int, R>{}) of the radix.
template <typename F, int... R>
__device__ __forceinline__ void with_radix(int radix, std::integer_sequence<int, R...>,
                                           const F& f) {
  (void)((radix == R && (f(std::integral_constant<int, R>{}), true)) || ...);
}

// Division by a constant of the launch, of n < 2^16 by less than 2^15: exact, as
// (2 n)(2^31 / by + e) / 2^32 is n / by and less than 1 / by.
struct Divisor {
  int32_t by;
  uint32_t magic;
  Divisor() = default;
  explicit Divisor(int n) : by(n), magic((1u << 31) / static_cast<uint32_t>(n) + 1) {}
  __device__ __forceinline__ int of(int n) const {
    return static_cast<int>(__umulhi(2 * static_cast<uint32_t>(n), magic));
  }
};

struct FftStage {
  Divisor radix, pitch;  // pitch: twiddle_pitch(radix)
  int32_t apart, block;  // places from one number of a thread to the next, and of a block
  int32_t apart_again;   // the same number, which nvcc does not know: see outer_pass
  int32_t twiddles;      // where those of the stage begin
  Divisor within;        // threads of a block
};

// The twiddle factors of a thread, for all but its first number, lie side by side, in an odd number
// of places: neighboring threads meet different banks.
AMSTEL_EVERYWHERE constexpr int twiddle_pitch(int radix) { return (radix - 1) | 1; }

constexpr int kFftStages = 4;

// Numbers lie in runs of the last radix, each padded to an odd number of places: in the last pass
// neighboring threads are a run apart, and so meet different banks.
struct FftPlan {
  int32_t stages, line, twiddles;  // line: places of a transform; twiddles: all there are
  int32_t pad;                     // places after a run, 0 or 1
  Divisor size, run, runs;         // numbers of a transform and of a run, runs of a transform
  FftStage stage[kFftStages];

  // Without an address, as the plan is an argument.
  __device__ __forceinline__ FftStage at(int s) const {
    FftStage found = stage[0];
#pragma unroll
    for (int i = 1; i < kFftStages; ++i)
      if (i == s) found = stage[i];
    return found;
  }
  __device__ __forceinline__ int place(int number) const {
    return pad ? number + run.of(number) : number;
  }
};

// Writes n as a product of `parts` radices, none above `largest`, in descending order.
template <typename S>
bool split(int n, int parts, int largest, int32_t* radix) {
  constexpr auto try_all = []<int... R>(std::integer_sequence<int, R...>, const auto& attempt) {
    return (attempt(R) || ...);
  };
  return try_all(Radices<S>{}, [&](int r) {
    *radix = r;
    if (r > largest || n % r) return false;
    if (parts == 1) return r == n;
    return split<S>(n / r, parts - 1, r < kLargestOuter ? r : kLargestOuter, radix + 1);
  });
}

// As few passes as can be, and among those the smallest largest radix, which is the last. Without
// stages where there is no such plan.
template <typename S>
FftPlan fft_plan(int n) {
  FftPlan plan{};
  int32_t radix[kFftStages] = {};
  int largest = 0;
  for (int parts = 1; parts <= kFftStages && !plan.stages; ++parts)
    for (largest = 1; largest <= kLargestRadix<S> && !plan.stages; ++largest)
      if (split<S>(n, parts, largest, radix)) plan.stages = parts;
  if (!plan.stages) return plan;
  plan.size = Divisor(n);
  const int m = plan.stages, last = radix[0];
  plan.pad = last % 2 == 0;
  plan.run = Divisor(last);
  plan.runs = Divisor(n / last);
  int apart = 1, within = 1;
  for (int s = m - 1; s >= 0; --s) {
    FftStage& stage = plan.stage[s];
    stage.radix = Divisor(radix[m - 1 - s]);
    stage.pitch = Divisor(twiddle_pitch(stage.radix.by));
    stage.apart = stage.apart_again = apart;
    stage.block = apart * stage.radix.by + (s == m - 1 ? plan.pad : 0);
    stage.within = Divisor(within);
    stage.twiddles = plan.twiddles;
    plan.twiddles += s == m - 1 ? 0 : stage.pitch.by * within;
    apart = stage.block;
    within *= stage.radix.by;
  }
  plan.line = apart;
  return plan;
}

}  // namespace amstel::cuda
