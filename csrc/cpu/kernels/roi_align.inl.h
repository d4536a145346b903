// ROI align, position-sensitive ROI pooling, and the gradients of both; torch-free.
//
// Data flow, as in roi_window.inl.h: a call has one image, some of its boxes and a tile of L
// channels. The window of cells that the boxes cover is widened once into scratch as [cell, L], and
// everything is added up there, L channels abreast, in the order in which torchvision adds, so that
// results have the same bits. The gradients add to a window of scratch, in the order of the boxes,
// and write it to grad_input once.
#pragma once
#include "cpu/kernels/roi_window.inl.h"

namespace amstel::AMSTEL_ISA {

template <class T, int L>
struct RoiAlign {
  using S = Sum<T>;
  using R = Roi<T, L>;
  using V = typename R::V;
  static constexpr int kVectors = R::kVectors, W = R::W;

  const cpu::RoiAlignArgs& a;
  const cpu::RoiGroup& g;
  const int64_t channel;
  const int64_t channels = a.roi.channels - channel < L ? a.roi.channels - channel : L;
  const int64_t ph = a.roi.pooled_height, pw = a.roi.pooled_width, bins = ph * pw;

  static void clear(V* v) {
    for (int i = 0; i < kVectors; ++i) v[i] = V{};
  }
  // By a number of samples or cells. A power of two has an inverse without rounding, and a product
  // is many times faster than a quotient.
  static void divide(V* v, int64_t by) {
    const S number = static_cast<S>(by);
    if ((by & (by - 1)) == 0)
      for (int i = 0; i < kVectors; ++i) v[i] *= 1 / number - V{};
    else
      for (int i = 0; i < kVectors; ++i) v[i] /= number - V{};
  }

  // Where the value of a bin of box k goes, or its gradient comes from.
  int64_t place(int64_t k, int64_t bin) const {
    const auto& s = a.roi.pooled_strides;
    return k * s.item + channel * s.channel + bin / pw * s.row + bin % pw * s.col;
  }
  V load_pooled(const T* p, int v) const {
    const int64_t stride = a.roi.pooled_strides.channel, left = channels - v * W;
    if (left <= 0) return V{};
    if (L > 1 && stride == 1) return load_wide<T, W>(p + v * W, left);
    V x{};
    for (int l = 0; l < W && l < left; ++l) x[l] = load_one(p + (v * W + l) * stride);
    return x;
  }
  void store_pooled(T* p, const V* value) const {
    const int64_t stride = a.roi.pooled_strides.channel;
    for (int v = 0; v < kVectors && channels > v * W; ++v) {
      const int64_t left = channels - v * W;
      if (a.roi.stream && stride == 1 && left >= W) {
        stream_wide<W>(p + v * W, value[v]);
      } else if (L > 1 && stride == 1 && left >= W) {
        store_wide<W>(p + v * W, value[v]);
      } else {
        T each[W];
        store_wide<W>(each, value[v]);
        for (int l = 0; l < W && l < left; ++l) p[(v * W + l) * stride] = each[l];
      }
    }
  }

  static const auto& weights(const cpu::RoiSample& sample) {
    if constexpr (sizeof(S) == 8)
      return sample.wide;
    else
      return sample.single;
  }

  // f(the four cells, their weights) over the samples of a bin. Where cells are comes from two
  // numbers a row and two a column, which leaves the most to the addressing of loads.
  template <class P, class F>
  __attribute__((always_inline)) void for_samples(const int64_t* starts, int64_t i, int64_t j,
                                                  P* window, const F& f) const {
    const int64_t *rows = starts + 1, *cols = rows + ph + 1;
    const cpu::RoiSample *const first = a.samples + cols[j], *const end = a.samples + cols[j + 1];
    P* const origin = window - (g.row * g.cols + g.col) * L;
    for (int64_t y = rows[i]; y < rows[i + 1]; ++y) {
      const cpu::RoiSample& row = a.samples[y];
      P *const top = origin + row.low * g.cols * L, *const bottom = origin + row.high * g.cols * L;
      const V ly = spread<V>(weights(row).high), hy = spread<V>(weights(row).low);
      for (const cpu::RoiSample* col = first; col < end; ++col) {
        const int64_t left = int64_t{col->low} * L, right = int64_t{col->high} * L;
        const V lx = spread<V>(weights(*col).high), hx = spread<V>(weights(*col).low);
        f(top + left, top + right, bottom + left, bottom + right, hy * hx, hy * lx, ly * hx,
          ly * lx);
      }
    }
  }

  // Scratch: the window; a box as [bin, L], and the same turned to [L, bin].
  void align(S* window) const {
    const R reader{a.roi, g, channel};
    reader.pack_input(window);
    S* const values = window + g.rows * g.cols * L;
    T* const turned = reinterpret_cast<T*>(values + bins * L);
    const auto& p = a.roi.pooled_strides;
    const bool straight = L > 1 && p.channel == 1;
    for (int64_t n = 0; n < g.count; ++n) {
      const int64_t k = g.boxes[n];
      const int64_t* const starts = a.starts + k * a.starts_width;
      const int64_t count = a.counts[k];
      T* const out = static_cast<T*>(a.roi.pooled) + k * p.item + channel * p.channel;
      // What is written two bins later is on its way meanwhile.
      const T* ahead = out + 2 * (straight ? p.col : L);
      for (int64_t i = 0; i < ph; ++i)
        for (int64_t j = 0; j < pw; ++j, ahead += straight ? p.col : L) {
          if (!a.roi.stream)
            for (int64_t line = 0; line < L; line += 64 / sizeof(T))
              __builtin_prefetch(ahead + line, 1);
          V sum[kVectors];
          clear(sum);
          for_samples(starts, i, j, static_cast<const S*>(window),
                      [&](const S* p1, const S* p2, const S* p3, const S* p4, V w1, V w2, V w3,
                          V w4) __attribute__((always_inline)) {
#pragma GCC unroll 2
                        for (int v = 0; v < kVectors; ++v)
                          sum[v] += R::load(p1 + v * W) * w1 + R::load(p2 + v * W) * w2 +
                                    R::load(p3 + v * W) * w3 + R::load(p4 + v * W) * w4;
                      });
          divide(sum, count);
          if (straight) {
            store_pooled(out + i * p.row + j * p.col, sum);
          } else {
            for (int v = 0; v < kVectors; ++v) R::store(values + (i * pw + j) * L + v * W, sum[v]);
          }
        }
      if (!straight) turn(values, turned, out);
    }
    if (a.roi.stream) stream_end();
  }

  // The bins of a box from [bin, L] to where they go, at once where its channels lie one behind the
  // other and are past the caches.
  void turn(const S* values, T* turned, T* out) const {
    using Line = Vector<int32_t, kVectorBytes / 4>;
    const auto& p = a.roi.pooled_strides;
    const bool past = a.roi.stream && p.col == 1 && p.channel == bins &&
                      reinterpret_cast<uintptr_t>(out) % sizeof(Line) == 0;
    T* const to = past ? turned : out;
    int64_t b = 0;
    if (L > 1 && p.col == 1)
      for (; b + W <= bins; b += W)
        for (int v = 0; v < kVectors; ++v) {
          V block[W];
#pragma GCC unroll 16
          for (int l = 0; l < W; ++l) block[l] = R::load(values + (b + l) * L + v * W);
          transpose<S, W>(block);
          for (int l = 0; l < W && v * W + l < channels; ++l)
            store_wide<W>(to + (v * W + l) * p.channel + b, block[l]);
        }
    for (; b < bins; ++b)
      for (int64_t l = 0; l < channels; ++l)
        R::store_one(to + l * p.channel + b * p.col, values[b * L + l]);
    if (!past) return;
    constexpr int64_t kLine = sizeof(Line) / sizeof(T);
    int64_t done = 0;
    for (; done + kLine <= channels * bins; done += kLine)
      stream(out + done, load_raw<Line>(turned + done));
    __builtin_memcpy(out + done, turned + done, (channels * bins - done) * sizeof(T));
  }

  void align_grad(S* window) const {
    __builtin_memset(window, 0, g.rows * g.cols * L * sizeof(S));
    for (int64_t n = 0; n < g.count; ++n) {
      const int64_t k = g.boxes[n];
      const int64_t count = a.counts[k];
      for (int64_t b = 0; b < bins; ++b) {
        V grad[kVectors];
        for (int v = 0; v < kVectors; ++v)
          grad[v] = load_pooled(static_cast<const T*>(a.roi.pooled) + place(k, b), v);
        divide(grad, count);
        const auto add = [](S* to, V value) { R::store(to, R::load(to) + value); };
        for_samples(a.starts + k * a.starts_width, b / pw, b % pw, window,
                    [&](S* p1, S* p2, S* p3, S* p4, V w1, V w2, V w3, V w4)
                        __attribute__((always_inline)) {
                          for (int v = 0; v < kVectors; ++v) {
                            add(p1 + v * W, grad[v] * w1);
                            add(p2 + v * W, grad[v] * w2);
                            add(p3 + v * W, grad[v] * w3);
                            add(p4 + v * W, grad[v] * w4);
                          }
                        });
      }
    }
    R{a.roi, g, channel}.write_grad_input(window, g.col, g.cols, false);
  }

  // Channels of the input are [C, ph, pw]: a bin has an image of C channels of its own.
  cpu::RoiArgs of_bin(int64_t b) const {
    cpu::RoiArgs own = a.roi;
    const auto shifted = [&](auto* p, int64_t stride) { return p ? p + b * stride : p; };
    own.input = shifted(static_cast<const T*>(a.roi.input), a.roi.in.channel);
    own.in.channel *= bins;
    own.grad_input = shifted(static_cast<T*>(a.roi.grad_input), a.roi.grad_strides.channel);
    own.grad_strides.channel *= bins;
    return own;
  }
  // The cells of so many bins of all boxes of the group.
  cpu::RoiGroup window_of_bins(int64_t first, int64_t count) const {
    int64_t row = INT64_MAX, row_end = 0, col = INT64_MAX, col_end = 0;
    for (int64_t n = 0; n < g.count; ++n)
      for (int64_t b = first; b < first + count; ++b) {
        const Edges e = edges(g.boxes[n], b);
        if (e.empty()) continue;
        row = e.row < row ? e.row : row, row_end = e.row_end > row_end ? e.row_end : row_end;
        col = e.col < col ? e.col : col, col_end = e.col_end > col_end ? e.col_end : col_end;
      }
    cpu::RoiGroup own = g;
    if (row_end == 0) row = col = 0, col_end = 0;
    own.row = row, own.rows = row_end - row, own.col = col, own.cols = col_end - col;
    return own;
  }
  struct Edges {
    int64_t row, row_end, col, col_end;
    bool empty() const { return row >= row_end || col >= col_end; }
  };
  Edges edges(int64_t k, int64_t b) const {
    const int32_t* row = a.roi.table + k * roi::table_width(ph, pw) + 1 + b / pw;
    const int32_t* col = a.roi.table + k * roi::table_width(ph, pw) + 1 + 2 * ph + b % pw;
    return {row[0], row[ph], col[0], col[pw]};
  }

  // Scratch: a window, or one for each of W bins where these lie side by side in memory.
  void ps_pool(S* window) const {
    const int64_t step = L > 1 && bins > 1 && a.roi.in.channel == 1 ? W : 1;
    for (int64_t b = 0; b < bins; b += step) {
      const int64_t count = bins - b < step ? bins - b : step;
      const cpu::RoiGroup own = window_of_bins(b, count);
      if (step > 1) {
        pack_bins(own, b, count, window);
      } else {
        const cpu::RoiArgs args = of_bin(b);
        R{args, own, channel}.pack_input(window);
      }
      for (int64_t i = 0; i < count; ++i)
        pool_bin(own, b + i, window + i * own.rows * own.cols * L);
    }
    if (a.roi.stream) stream_end();
  }

  // A window as [cell, L] for each of `count` bins, which are turned against the channels.
  void pack_bins(const cpu::RoiGroup& own, int64_t first, int64_t count, S* window) const {
    const auto& in = a.roi.in;
    // The last bins are read with those before them, to read whole vectors.
    const int64_t at = first + W <= bins || bins < W ? first : bins - W, n = bins - at;
    const int64_t cells = own.rows * own.cols;
    const T* x = static_cast<const T*>(a.roi.input) + own.image * in.item + own.row * in.row +
                 own.col * in.col + channel * bins + at;
    for (int64_t r = 0; r < own.rows; ++r, x += in.row)
      for (int64_t c = 0; c < own.cols; ++c, window += L)
        for (int v = 0; v < kVectors; ++v) {
          V block[W];
          const T* const from = x + c * in.col + v * W * bins;
#pragma GCC unroll 16
          for (int l = 0; l < W; ++l)
            block[l] = l < channels - v * W ? load_wide<T, W>(from + l * bins, n) : V{};
          transpose<S, W>(block);
          for (int64_t i = 0; i < count; ++i)
            R::store(window + i * cells * L + v * W, block[first - at + i]);
        }
  }

  void pool_bin(const cpu::RoiGroup& own, int64_t b, const S* window) const {
    for (int64_t n = 0; n < g.count; ++n) {
      const int64_t k = g.boxes[n];
      const Edges e = edges(k, b);
      V sum[kVectors];
      clear(sum);
      if (!e.empty()) {
        for (int64_t y = e.row; y < e.row_end; ++y) {
          const S* from = window + ((y - own.row) * own.cols + e.col - own.col) * L;
          for (int64_t x = e.col; x < e.col_end; ++x, from += L)
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v) sum[v] += R::load(from + v * W);
        }
        divide(sum, (e.row_end - e.row) * (e.col_end - e.col));
      }
      store_pooled(static_cast<T*>(a.roi.pooled) + place(k, b), sum);
    }
  }

  void ps_pool_grad(S* window) const {
    for (int64_t b = 0; b < bins; ++b) {
      const cpu::RoiArgs args = of_bin(b);
      const cpu::RoiGroup own = window_of_bins(b, 1);
      if (own.rows == 0) continue;
      __builtin_memset(window, 0, own.rows * own.cols * L * sizeof(S));
      for (int64_t n = 0; n < g.count; ++n) {
        const int64_t k = g.boxes[n];
        const Edges e = edges(k, b);
        if (e.empty()) continue;
        V grad[kVectors];
        for (int v = 0; v < kVectors; ++v)
          grad[v] = load_pooled(static_cast<const T*>(a.roi.pooled) + place(k, b), v);
        divide(grad, (e.row_end - e.row) * (e.col_end - e.col));
        for (int64_t y = e.row; y < e.row_end; ++y) {
          S* to = window + ((y - own.row) * own.cols + e.col - own.col) * L;
          for (int64_t x = e.col; x < e.col_end; ++x, to += L)
            for (int v = 0; v < kVectors; ++v) R::store(to + v * W, R::load(to + v * W) + grad[v]);
        }
      }
      R{args, own, channel}.write_grad_input(window, own.col, own.cols, false);
    }
  }
};

// The entries of the table of kernels.
template <class T, int L>
void roi_align(const cpu::RoiAlignArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  RoiAlign<T, L>{a, g, channel}.align(static_cast<Sum<T>*>(scratch));
}
template <class T, int L>
void roi_align_grad(const cpu::RoiAlignArgs& a, const cpu::RoiGroup& g, int64_t channel,
                    void* scratch) {
  RoiAlign<T, L>{a, g, channel}.align_grad(static_cast<Sum<T>*>(scratch));
}
template <class T, int L>
void ps_roi_pool(const cpu::RoiAlignArgs& a, const cpu::RoiGroup& g, int64_t channel,
                 void* scratch) {
  RoiAlign<T, L>{a, g, channel}.ps_pool(static_cast<Sum<T>*>(scratch));
}
template <class T, int L>
void ps_roi_pool_grad(const cpu::RoiAlignArgs& a, const cpu::RoiGroup& g, int64_t channel,
                      void* scratch) {
  RoiAlign<T, L>{a, g, channel}.ps_pool_grad(static_cast<Sum<T>*>(scratch));
}

template <class T, int L>
constexpr cpu::Kernels::RoiAlign kRoiAlign = {L, roi_align<T, L>, roi_align_grad<T, L>,
                                              ps_roi_pool<T, L>, ps_roi_pool_grad<T, L>};

}  // namespace amstel::AMSTEL_ISA
