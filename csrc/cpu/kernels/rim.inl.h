// The input of a recurrent inference machine's network, [eta, p Psi'(eta) g], and separable bicubic
// resampling with its adjoint; torch-free.
//
// Data flow of the input.  A tile of pixels of one channel after the other: eta and g are read once
// (of g mask and y, where g = mask (Psi(eta) - y)), and both results are written once, interleaved
// into pixels of 2 C numbers: 3 (4) numbers read and 2 written a pixel and channel.  Threads own
// pixels.
//
// Data flow of the resampling.  Down: a row of the result is a weighted sum of 4 s rows of the
// image, which is then split into its s phases, so that the sums along it are over neighbors; an
// image is read from a cache four times and written once at 1 / s^2.  Up, the adjoint: rows of the
// small image are spread along themselves, phase by phase, and a row of the result is a weighted
// sum of about 4 of them. The mirrored border is folded back. Threads own rows of the result.
#pragma once
#include <type_traits>

#include "cpu/isa.h"
#include "cpu/kernels/activation.h"
#include "cpu/kernels/transpose.h"

namespace amstel::AMSTEL_ISA {

using cpu::kRimTile;

// n <= kRimTile values from a plane, side by side: in place where they are.
template <class S>
inline const S* gather(const cpu::Planes& p, int64_t item, int64_t channel, int64_t pixel,
                       int64_t n, S* buffer) {
  const S* const from =
      static_cast<const S*>(p.data) + item * p.item + channel * p.channel + pixel * p.pixel;
  if (p.pixel == 1) return from;
  for (int64_t k = 0; k < n; ++k) buffer[k] = from[k * p.pixel];
  return buffer;
}

// L planes, kRimTile apart, to the numbers at `pixels` of n pixels of `stride` numbers, or back:
// blocks of L planes and pixels are turned in registers.
template <bool kBack, int L, class T>
inline void turn_planes(T* planes, T* pixels, int64_t stride, int64_t n) {
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t,
                                  std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  using V = Vector<Bits, L>;
  int64_t k = 0;
  for (; L > 1 && k + L <= n; k += L) {
    V v[L];
    for (int i = 0; i < L; ++i)
      v[i] = load_raw<V>(kBack ? pixels + (k + i) * stride : planes + i * kRimTile + k);
    transpose<Bits, L>(v);
    for (int i = 0; i < L; ++i)
      __builtin_memcpy(kBack ? planes + i * kRimTile + k : pixels + (k + i) * stride, &v[i],
                       sizeof(V));
  }
  for (; k < n; ++k)
    for (int i = 0; i < L; ++i)
      if constexpr (kBack)
        planes[i * kRimTile + k] = pixels[k * stride + i];
      else
        pixels[k * stride + i] = planes[i * kRimTile + k];
}

template <bool kBack, class T>
inline void turn(T* planes, int64_t count, T* pixels, int64_t stride, int64_t n) {
  if (count == 2 && stride == 2) {  // the compiler's own vectors are wider
    T *const first = planes, *const second = planes + kRimTile;
    for (int64_t k = 0; k < n; ++k)
      if constexpr (kBack)
        first[k] = pixels[2 * k], second[k] = pixels[2 * k + 1];
      else
        pixels[2 * k] = first[k], pixels[2 * k + 1] = second[k];
    return;
  }
  int64_t j = 0;
  for (; j + 4 <= count; j += 4)
    turn_planes<kBack, 4>(planes + j * kRimTile, pixels + j, stride, n);
  for (; j + 2 <= count; j += 2)
    turn_planes<kBack, 2>(planes + j * kRimTile, pixels + j, stride, n);
  if (j < count) turn_planes<kBack, 1>(planes + j * kRimTile, pixels + j, stride, n);
}

// Channels [c, c + count) of `channels`, at most kRimChannels: planes of their first numbers, then
// of their second ones, to n pixels or back.
constexpr int64_t kRimChannels = 4;
template <bool kBack, class T>
inline void turn_channels(T* planes, int64_t c, int64_t count, int64_t channels, T* pixels,
                          int64_t n) {
  if (count == channels) return turn<kBack>(planes, 2 * count, pixels, 2 * channels, n);
  turn<kBack>(planes, count, pixels + c, 2 * channels, n);
  turn<kBack>(planes + count * kRimTile, count, pixels + channels + c, 2 * channels, n);
}

// eta and g, n <= kRimTile of each, to the two numbers of the network's input.
template <class T>
inline void write_input(const Sum<T>* eta, const Sum<T>* g, Sum<T> factor, bool derivative,
                        T* first, T* second, int64_t n) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  for (int64_t k = 0; k < n; k += W) {
    const auto e = load_wide<S, W>(eta + k, n - k);
    auto v = load_wide<S, W>(g + k, n - k) * factor;
    if (derivative) {
      const auto x = sigmoid<S, W>(e);
      v *= x * (1 - x);
    }
    store_wide<T, W>(first + k, e, n - k);
    store_wide<T, W>(second + k, v, n - k);
  }
}

// A choice, so that what was not measured may be anything.
template <class S, int W>
inline Vector<S, W> measured(Vector<S, W> other, Vector<S, W> mask) {
  return mask == 0 ? Vector<S, W>{} : other;
}

// Tiles [begin, end) of `pixels` an item.
template <class T>
void rim_input(const cpu::RimInputArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  const int64_t tiles = divide_up(a.pixels, kRimTile);
  S eta[kRimTile], other[kRimTile], mask[kRimTile], residual[kRimTile];
  T planes[2 * kRimChannels * kRimTile];
  for (int64_t t = begin; t < end; ++t) {
    const int64_t item = t / tiles, pixel = t % tiles * kRimTile;
    const int64_t n = a.pixels - pixel < kRimTile ? a.pixels - pixel : kRimTile;
    const S factor =
        static_cast<S>(a.factor) * (a.precision ? static_cast<const S*>(a.precision)[item] : S(1));
    for (int64_t c = 0; c < a.channels; ++c) {
      const S* const e = gather(a.eta, item, c, pixel, n, eta);
      const S* g = gather(a.other, item, c, pixel, n, other);
      if (a.residual) {
        const S* const m = a.mask.data ? gather(a.mask, item, c, pixel, n, mask) : nullptr;
        for (int64_t k = 0; k < n; k += W) {
          fetch_ahead(e + k), fetch_ahead(g + k);
          auto x = load_wide<S, W>(e + k, n - k);
          if (a.logistic) x = sigmoid<S, W>(x);
          auto y = load_wide<S, W>(g + k, n - k);
          if (m) {
            fetch_ahead(m + k);
            const auto weight = load_wide<S, W>(m + k, n - k);
            y = weight * (x - measured<S, W>(y, weight));
          } else {
            y = x - y;
          }
          store_wide<S, W>(residual + k, y, n - k);
        }
        g = residual;
      }
      const int64_t at = c % kRimChannels, from = c - at;
      const int64_t count = a.channels - from < kRimChannels ? a.channels - from : kRimChannels;
      write_input<T>(e, g, factor, a.logistic, planes + at * kRimTile,
                     planes + (count + at) * kRimTile, n);
      if (at + 1 == count)
        turn_channels<false>(planes, from, count, a.channels,
                             static_cast<T*>(a.out) + (item * a.pixels + pixel) * 2 * a.channels,
                             n);
    }
  }
}

// The gradients of eta and of g, or of y where g = mask (Psi(eta) - y).
template <class T>
void rim_input_grad(const cpu::RimInputArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  const int64_t tiles = divide_up(a.pixels, kRimTile);
  S eta[kRimTile], other[kRimTile], mask[kRimTile];
  T planes[2 * kRimChannels * kRimTile];
  for (int64_t t = begin; t < end; ++t) {
    const int64_t item = t / tiles, pixel = t % tiles * kRimTile;
    const int64_t n = a.pixels - pixel < kRimTile ? a.pixels - pixel : kRimTile;
    const S factor =
        static_cast<S>(a.factor) * (a.precision ? static_cast<const S*>(a.precision)[item] : S(1));
    for (int64_t c = 0; c < a.channels; ++c) {
      const S* const e = gather(a.eta, item, c, pixel, n, eta);
      const S* const g = gather(a.other, item, c, pixel, n, other);
      const S* const m = a.mask.data ? gather(a.mask, item, c, pixel, n, mask) : nullptr;
      const int64_t at = c % kRimChannels, from = c - at;
      const int64_t count = a.channels - from < kRimChannels ? a.channels - from : kRimChannels;
      T* const grad = const_cast<T*>(static_cast<const T*>(a.grad)) +
                      (item * a.pixels + pixel) * 2 * a.channels;
      if (at == 0) turn_channels<true>(planes, from, count, a.channels, grad, n);
      const T* const first = planes + at * kRimTile;
      const T* const second = first + count * kRimTile;
      const int64_t to = item * a.result.item + c * a.result.channel + pixel * a.result.pixel;
      S* const to_eta = static_cast<S*>(a.grad_eta) + to;
      S* const to_other = static_cast<S*>(a.grad_other) + to;
      // In place where the results lie side by side.
      const bool dense = a.result.pixel == 1;
      S own_eta[kRimTile], own_other[kRimTile];
      S* const d_eta = dense ? to_eta : own_eta;
      S* const d_other = dense ? to_other : own_other;
      for (int64_t k = 0; k < n; k += W) {
        using V = Vector<S, W>;
        fetch_ahead(e + k), fetch_ahead(g + k), fetch_ahead(d_eta + k), fetch_ahead(d_other + k);
        const V d = load_wide<T, W>(second + k, n - k) * factor;
        V slope = V{} + 1, bend{}, x = load_wide<S, W>(e + k, n - k);
        if (a.logistic) {
          x = sigmoid<S, W>(x);
          slope = x * (1 - x);
          bend = slope * (1 - 2 * x);
        }
        V value = load_wide<S, W>(g + k, n - k), inner = slope, by_other = d * inner;
        if (a.residual) {
          if (m) {
            const V weight = load_wide<S, W>(m + k, n - k);
            value = weight * (x - measured<S, W>(value, weight)), inner *= weight;
            by_other = -measured<S, W>(d * inner, weight);
          } else {
            value = x - value, by_other = -by_other;
          }
        }
        V sum = load_wide<T, W>(first + k, n - k);
        if (a.logistic) sum += d * bend * value;  // 0 times NaN would not be 0
        if (a.residual) sum += d * inner * slope;
        store_wide<S, W>(d_eta + k, sum, n - k);
        store_wide<S, W>(d_other + k, by_other, n - k);
      }
      for (int64_t k = 0; k < n && !dense; ++k)
        to_eta[k * a.result.pixel] = d_eta[k], to_other[k * a.result.pixel] = d_other[k];
    }
  }
}

// ------------------------------------------------------------------------------------- resampling

// out[c] = sum_k weight[k] rows[k][c]
template <class S>
inline void combine(const S* const* rows, const S* weight, int64_t count, int64_t n, S* out) {
  constexpr int W = kVectorBytes / sizeof(S);
  for (int64_t c = 0; c < n; c += W) {
    Vector<S, W> sum{};
    for (int64_t k = 0; k < count; ++k) sum += weight[k] * load_wide<S, W>(rows[k] + c, n - c);
    store_wide<S, W>(out + c, sum, n - c);
  }
}

// Rows [begin, end) of all small images one below the other; scratch: s phases and a row.
template <class S>
void bicubic_down(const cpu::BicubicArgs& a, void* scratch, int64_t begin, int64_t end) {
  constexpr int W = kVectorBytes / sizeof(S);
  const int64_t s = a.scale, h = a.height, w = a.width, length = cpu::bicubic_phase(w);
  const S* const weight = static_cast<const S*>(a.weight);
  S* const phases = static_cast<S*>(scratch);
  S* const row = phases + s * length;
  const S* rows[cpu::kMaxTaps];
  for (int64_t line = begin; line < end; ++line) {
    const S* const plane = static_cast<const S*>(a.in) + line / h * h * s * w * s;
    for (int64_t k = 0; k < 4 * s; ++k)
      rows[k] = plane + mirrored(line % h * s + a.first + k, h * s) * w * s;
    combine(rows, weight, 4 * s, w * s, row);
    for (int64_t p = 0; p < s; ++p) {
      S* const phase = phases + p * length;
      // Of the w + 3 numbers those without a mirror come from the row as they are.
      for (int64_t j = 0; j < w + 3; ++j) {
        const int64_t at = j * s + p + a.first;
        phase[j] = row[at >= 0 && at < w * s ? at : mirrored(at, w * s)];
      }
    }
    S* const out = static_cast<S*>(a.out) + line * w;
    const S* const minus = a.minus ? static_cast<const S*>(a.minus) + line * w : nullptr;
    for (int64_t j = 0; j < w; j += W) {
      Vector<S, W> sum{};
      for (int64_t p = 0; p < s; ++p)
        for (int64_t q = 0; q < 4; ++q)
          sum += weight[q * s + p] * load_wide<W>(phases + p * length + j + q);
      if (minus) sum -= load_wide<S, W>(minus + j, w - j);
      store_wide<S, W>(out + j, sum, w - j);
    }
  }
}

// A row of the small image along itself to one of the large: the adjoint of the sums above.
template <class S>
inline void spread(const cpu::BicubicArgs& a, const S* from, S* to, S* phases, S* padded) {
  constexpr int W = kVectorBytes / sizeof(S);
  const int64_t s = a.scale, w = a.width, length = cpu::bicubic_phase(w);
  const S* const weight = static_cast<const S*>(a.weight);
  // `padded` has 3 zeros before the row and zeros behind it.
  for (int64_t j = 0; j < 3; ++j) padded[j] = 0;
  __builtin_memcpy(padded + 3, from, w * sizeof(S));
  for (int64_t j = w + 3; j < length + 3; ++j) padded[j] = 0;
  for (int64_t p = 0; p < s; ++p)
    for (int64_t j = 0; j < w + 3; j += W) {
      Vector<S, W> sum{};
      for (int64_t q = 0; q < 4; ++q) sum += weight[q * s + p] * load_wide<W>(padded + 3 + j - q);
      store_wide<W, S>(phases + p * length + j, sum);
    }
  const int64_t total = (w + 3) * s, before = -a.first;
  for (int64_t p = 0; p < s; ++p) {
    const S* const phase = phases + p * length;
    for (int64_t j = 0; j < w + 3; ++j) {
      const int64_t at = j * s + p - before;
      if (at >= 0 && at < w * s) to[at] = phase[j];
    }
  }
  const auto fold = [&](int64_t u) {
    to[mirrored(u - before, w * s)] += phases[u % s * length + u / s];
  };
  for (int64_t u = 0; u < before && u < total; ++u) fold(u);
  for (int64_t u = before + w * s; u < total; ++u) fold(u);
}

// Blocks [begin, end) of rows of the large images, a.block to a block; scratch: the phases, a row
// and the spread rows that a block needs. The result is stored, or goes with eta to the network.
template <class T>
void bicubic_up(const cpu::BicubicArgs& a, void* scratch, int64_t begin, int64_t end) {
  using S = Sum<T>;
  const int64_t s = a.scale, h = a.height, w = a.width, length = cpu::bicubic_phase(w);
  S* const phases = static_cast<S*>(scratch);
  S* const padded = phases + s * length;
  S* const result = padded + length + 16;
  S* const lines = result + w * s;
  const int64_t blocks = (h * s + a.block - 1) / a.block;
  const int64_t* const start = a.start;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t plane = b / blocks, first = b % blocks * a.block;
    const int64_t last = first + a.block < h * s ? first + a.block : h * s;
    int64_t low = h, high = -1;
    for (int64_t k = start[first]; k < start[last]; ++k) {
      low = a.line[k] < low ? a.line[k] : low;
      high = a.line[k] > high ? a.line[k] : high;
    }
    const S* const in = static_cast<const S*>(a.in) + plane * h * w;
    for (int64_t i = low; i <= high; ++i)
      spread(a, in + i * w, lines + (i - low) * w * s, phases, padded);
    for (int64_t m = first; m < last; ++m) {
      const S* rows[cpu::kMaxTaps];
      const int64_t count = start[m + 1] - start[m];
      for (int64_t k = 0; k < count; ++k) rows[k] = lines + (a.line[start[m] + k] - low) * w * s;
      const S* const weight = static_cast<const S*>(a.line_weight) + start[m];
      if (!a.eta) {
        combine(rows, weight, count, w * s, static_cast<S*>(a.out) + (plane * h * s + m) * w * s);
        continue;
      }
      combine(rows, weight, count, w * s, result);
      const int64_t item = plane / a.channels, c = plane % a.channels;
      const S factor = static_cast<S>(a.factor) *
                       (a.precision ? static_cast<const S*>(a.precision)[item] : S(1));
      const S* const eta = static_cast<const S*>(a.eta) + (plane * h * s + m) * w * s;
      T* const out = static_cast<T*>(a.out) + (item * h * s + m) * w * s * 2 * a.channels;
      T planes[2 * kRimTile];
      for (int64_t k = 0; k < w * s; k += kRimTile) {
        const int64_t n = w * s - k < kRimTile ? w * s - k : kRimTile;
        write_input<T>(eta + k, result + k, factor, a.logistic, planes, planes + kRimTile, n);
        turn_channels<false>(planes, c, 1, a.channels, out + k * 2 * a.channels, n);
      }
    }
  }
}

}  // namespace amstel::AMSTEL_ISA
