// The normal operator of multi-coil MRI, sum_c conj(S_c) F^-1 M F (S_c x), fused around the Fourier
// transforms; torch-free.
//
// Data flow.  As many rows of the image as a vector has lanes make a strip. A strip is transposed
// on its way in, so that a lane is a row, multiplied by a coil's sensitivities, transformed along
// the row, masked, transformed back, multiplied by the conjugate sensitivities and added to the
// coils before, all in a cache; the last coil's sum is transposed back and written.  A mask of
// columns needs no more: transforms along the columns of the image cancel.  Sensitivities and x are
// read once, the result is written once, nothing else leaves the cache; memory does not depend on
// the number of coils.
//
// Another mask comes between transforms along the columns, so one coil's k-space goes to memory,
// in blocks of as many columns as there are lanes: strips write it, blocks of columns transform,
// mask and transform it back, strips read it. Threads own strips, then blocks of columns; coils
// come in their order, so that sums do not depend on the number of threads.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/fft.inl.h"
#include "cpu/kernels/transpose.h"

namespace amstel::AMSTEL_ISA {

// n complex numbers of each of `rows` <= L rows, side by side in memory, to n pairs of vectors.
template <class S>
inline void load_strip(const S* from, int64_t stride, int64_t rows, int64_t n,
                       Vector<S, kFftLanes<S>>* to) {
  constexpr int L = kFftLanes<S>;
  Vector<S, L> v[L];
  for (int64_t k = 0; k < 2 * n; k += L) {
    for (int i = 0; i < L; ++i) {
      const S* const row = from + (i < rows ? i : 0) * stride;
      v[i] = load_wide<S, L>(row + k, 2 * n - k);
    }
    transpose<S, L>(v);
    for (int i = 0; i < L && k + i < 2 * n; ++i) to[k + i] = v[i];
  }
}

// The way back, (v - minus) * scale.
template <class S>
inline void store_strip(const Vector<S, kFftLanes<S>>* from, S* to, const S* minus, S scale,
                        int64_t stride, int64_t rows, int64_t n) {
  constexpr int L = kFftLanes<S>;
  Vector<S, L> v[L];
  for (int64_t k = 0; k < 2 * n; k += L) {
    for (int i = 0; i < L; ++i) v[i] = k + i < 2 * n ? from[k + i] : Vector<S, L>{};
    transpose<S, L>(v);
    for (int i = 0; i < L && i < rows; ++i) {
      auto value = v[i];
      if (minus) value -= load_wide<S, L>(minus + i * stride + k, 2 * n - k);
      store_wide<S, L>(to + i * stride + k, value * scale, 2 * n - k);
    }
  }
}

// The vectors of a thread: image, sensitivities, sum and two for the transforms.
template <class S>
struct Strip {
  static constexpr int L = kFftLanes<S>;
  using V = Vector<S, L>;
  const cpu::MriArgs& a;
  V *image, *coil, *sum, *one, *two;
  int64_t strips, item, row, rows;

  Strip(const cpu::MriArgs& args, void* scratch, int64_t strip) : a(args) {
    V* const v = static_cast<V*>(scratch);
    const int64_t n = 2 * a.width;
    image = v, coil = v + n, sum = v + 2 * n, one = v + 3 * n, two = one + 2 * a.along_row.length;
    strips = (a.height + L - 1) / L;
    item = strip / strips;
    row = strip % strips * L;
    rows = a.height - row < L ? a.height - row : L;
  }

  const S* at(const void* images, int64_t number) const {
    return static_cast<const S*>(images) + (number * a.height + row) * 2 * a.width;
  }
  void load_image() { load_strip(at(a.x, item), 2 * a.width, rows, a.width, image); }
  void load_coil(int64_t c) {
    if (a.sensitivities)
      load_strip(at(a.sensitivities, (a.shared ? 0 : item * a.coils) + c), 2 * a.width, rows,
                 a.width, coil);
  }
  // one = S x
  V* expand() {
    if (!a.sensitivities) return image;
    for (int64_t k = 0; k < 2 * a.width; k += 2) {
      const V re = coil[k], im = coil[k + 1], x = image[k], y = image[k + 1];
      one[k] = re * x - im * y;
      one[k + 1] = re * y + im * x;
    }
    return one;
  }
  // sum += conj(S) z
  void reduce(const V* z, bool first) {
    for (int64_t k = 0; k < 2 * a.width; k += 2) {
      V x = z[k], y = z[k + 1];
      if (a.sensitivities) {
        const V re = coil[k], im = coil[k + 1];
        x = re * z[k] + im * z[k + 1];
        y = re * z[k + 1] - im * z[k];
      }
      sum[k] = first ? x : sum[k] + x;
      sum[k + 1] = first ? y : sum[k + 1] + y;
    }
  }
  void finish() {
    for (int64_t k = 0; k < 2 * a.width; ++k) sum[k] *= static_cast<S>(a.norm);
    const S scale =
        static_cast<S>(a.factor) * (a.scale ? static_cast<const S*>(a.scale)[item] : S(1));
    store_strip(sum, const_cast<S*>(at(a.out, item)), a.minus ? at(a.minus, item) : nullptr, scale,
                2 * a.width, rows, a.width);
  }
};

// Strips [begin, end) of all images.
template <class S>
void mri_columns(const cpu::MriArgs& a, void* scratch, int64_t begin, int64_t end) {
  using V = Vector<S, kFftLanes<S>>;
  const S* const mask = static_cast<const S*>(a.mask);
  for (int64_t number = begin; number < end; ++number) {
    Strip<S> s(a, scratch, number);
    s.load_image();
    for (int64_t c = 0; c < a.coils; ++c) {
      s.load_coil(c);
      V* const images = s.expand();
      // The image is needed for every coil, and not written where there is but one.
      V* k = fft<S>(a.along_row, false, images, images == s.one ? s.two : s.one,
                    images == s.one ? s.one : s.two);
      V* const spare = k == s.one ? s.two : s.one;
      if (k == images && images == s.image) {
        for (int64_t i = 0; i < 2 * a.width; ++i) spare[i] = k[i];
        k = spare;
      }
      for (int64_t i = 0; i < a.width; ++i) k[2 * i] *= mask[i], k[2 * i + 1] *= mask[i];
      s.reduce(fft<S>(a.along_row, true, k, k == s.one ? s.two : s.one, k), c == 0);
    }
    s.finish();
  }
}

// Rows [row, row + rows) of a coil's k-space, whose blocks of columns are each contiguous: f(the
// vectors of a part of L columns, the first of which is k; where they lie).
template <class S, class V, class F>
inline __attribute__((always_inline)) void over_blocks(const cpu::MriArgs& a, V* kspace,
                                                       int64_t row, const F& f) {
  constexpr int L = kFftLanes<S>;
  for (int64_t k = 0; k < a.width; k += L)
    for (int part = 0; part < 2; ++part) f(k, part, kspace + (k / L * a.height + row) * 2 + part);
}

template <class S>
inline void from_blocks(const cpu::MriArgs& a, const Vector<S, kFftLanes<S>>* kspace, int64_t row,
                        int64_t rows, Vector<S, kFftLanes<S>>* to) {
  constexpr int L = kFftLanes<S>;
  using V = Vector<S, L>;
  over_blocks<S>(a, kspace, row,
                 [&](int64_t k, int part, const V* from) __attribute__((always_inline)) {
                   V tile[L];
                   for (int i = 0; i < L; ++i) tile[i] = from[2 * (i < rows ? i : 0)];
                   transpose<S, L>(tile);
                   for (int i = 0; i < L && k + i < a.width; ++i) to[2 * (k + i) + part] = tile[i];
                 });
}

template <class S>
inline void to_blocks(const cpu::MriArgs& a, const Vector<S, kFftLanes<S>>* from, int64_t row,
                      int64_t rows, Vector<S, kFftLanes<S>>* kspace) {
  constexpr int L = kFftLanes<S>;
  using V = Vector<S, L>;
  over_blocks<S>(a, kspace, row, [&](int64_t k, int part, V* to) __attribute__((always_inline)) {
    V tile[L];
    for (int i = 0; i < L; ++i) tile[i] = k + i < a.width ? from[2 * (k + i) + part] : V{};
    transpose<S, L>(tile);
    for (int i = 0; i < L && i < rows; ++i) to[2 * i] = tile[i];
  });
}

// The strips of one image, for its coil number `coil`: what came back of the one before is added to
// the sum, then this one's goes to k-space. `coil` = coils only adds, and finishes.
template <class S>
void mri_strips(const cpu::MriArgs& a, void* scratch, int64_t item, int64_t coil, int64_t begin,
                int64_t end) {
  constexpr int L = kFftLanes<S>;
  using V = Vector<S, L>;
  V* const kspace = static_cast<V*>(a.kspace);
  for (int64_t number = begin; number < end; ++number) {
    Strip<S> s(a, scratch, item * ((a.height + L - 1) / L) + number);
    if (coil > 0) {
      from_blocks<S>(a, kspace, s.row, s.rows, s.one);
      s.load_coil(coil - 1);
      V* const back = fft<S>(a.along_row, true, s.one, s.two, s.one);
      s.sum = static_cast<V*>(a.sums) + number * 2 * a.width;
      s.reduce(back, coil == 1);
      if (coil == a.coils) {
        s.finish();
        continue;
      }
    }
    s.load_image();
    s.load_coil(coil);
    to_blocks<S>(a, fft<S>(a.along_row, false, s.expand(), s.two, s.one), s.row, s.rows, kspace);
  }
}

// Blocks [begin, end) of columns of the coil's k-space: transformed, masked, transformed back.
template <class S>
void mri_blocks(const cpu::MriArgs& a, void* scratch, int64_t item, int64_t begin, int64_t end) {
  constexpr int L = kFftLanes<S>;
  using V = Vector<S, L>;
  V* const one = static_cast<V*>(scratch);
  V* const two = one + 2 * a.along_column.length;
  const S* const mask =
      static_cast<const S*>(a.mask) + (a.shared_mask ? 0 : item * a.height * a.width);
  for (int64_t block = begin; block < end; ++block) {
    V* const k = static_cast<V*>(a.kspace) + block * a.height * 2;
    V* const there = fft<S>(a.along_column, false, k, one, two);
    for (int64_t h = 0; h < a.height; ++h) {
      const auto m = load_wide<S, L>(mask + h * a.width + block * L, a.width - block * L);
      there[2 * h] *= m, there[2 * h + 1] *= m;
    }
    // k itself has no room for more than its numbers.
    V* const other = there == one ? two : one;
    V* const back = fft<S>(a.along_column, true, there, other, a.along_column.chirp ? there : k);
    if (back != k)
      for (int64_t i = 0; i < 2 * a.height; ++i) k[i] = back[i];
  }
}

// ---------------------------------------------------------------------------- single operations

// Images [begin, end): coil images S_c x.
template <class S>
void coil_expand(const cpu::MriArgs& a, int64_t begin, int64_t end) {
  const int64_t n = a.height * a.width;
  for (int64_t number = begin; number < end; ++number) {
    const S* const x = static_cast<const S*>(a.x) + number / a.coils * 2 * n;
    const S* const s =
        static_cast<const S*>(a.sensitivities) + (a.shared ? number % a.coils : number) * 2 * n;
    S* const out = static_cast<S*>(a.out) + number * 2 * n;
    for (int64_t k = 0; k < 2 * n; k += 2) {
      out[k] = s[k] * x[k] - s[k + 1] * x[k + 1];
      out[k + 1] = s[k] * x[k + 1] + s[k + 1] * x[k];
    }
  }
}

// Rows [begin, end) of all images: (sum_c conj(S_c) z_c - minus) factor scale.
template <class S>
void coil_reduce(const cpu::MriArgs& a, int64_t begin, int64_t end) {
  const int64_t n = 2 * a.height * a.width, width = 2 * a.width;
  for (int64_t number = begin; number < end; ++number) {
    const int64_t item = number / a.height, at = number % a.height * width;
    S* const out = static_cast<S*>(a.out) + item * n + at;
    for (int64_t k = 0; k < width; ++k) out[k] = 0;
    for (int64_t c = 0; c < a.coils; ++c) {
      const S* const s =
          static_cast<const S*>(a.sensitivities) + ((a.shared ? 0 : item * a.coils) + c) * n + at;
      const S* const z = static_cast<const S*>(a.x) + (item * a.coils + c) * n + at;
      for (int64_t k = 0; k < width; k += 2) {
        out[k] += s[k] * z[k] + s[k + 1] * z[k + 1];
        out[k + 1] += s[k] * z[k + 1] - s[k + 1] * z[k];
      }
    }
    const S* const minus = a.minus ? static_cast<const S*>(a.minus) + item * n + at : nullptr;
    const S scale =
        static_cast<S>(a.factor) * (a.scale ? static_cast<const S*>(a.scale)[item] : S(1));
    for (int64_t k = 0; k < width; ++k) out[k] = (minus ? out[k] - minus[k] : out[k]) * scale;
  }
}

// Rows [begin, end) of all coil images: k = factor mask (k - minus), in place.
template <class S>
void kspace_residual(const cpu::MriArgs& a, int64_t begin, int64_t end) {
  const S factor = static_cast<S>(a.factor);
  for (int64_t number = begin; number < end; ++number) {
    S* const k = static_cast<S*>(a.out) + number * 2 * a.width;
    const S* const minus =
        a.minus ? static_cast<const S*>(a.minus) + number * 2 * a.width : nullptr;
    const int64_t item = number / (a.height * a.coils), row = number % a.height;
    const S* const mask = static_cast<const S*>(a.mask) +
                          (a.columns ? 0 : ((a.shared_mask ? 0 : item) * a.height + row) * a.width);
    for (int64_t i = 0; i < a.width; ++i) {
      // A choice, so that what was not measured may be anything.
      const S m = factor * mask[i];
      const S re = minus ? k[2 * i] - minus[2 * i] : k[2 * i];
      const S im = minus ? k[2 * i + 1] - minus[2 * i + 1] : k[2 * i + 1];
      k[2 * i] = m == 0 ? S(0) : m * re;
      k[2 * i + 1] = m == 0 ? S(0) : m * im;
    }
  }
}

}  // namespace amstel::AMSTEL_ISA
