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
  static void divide(V* v, S by) {
    for (int i = 0; i < kVectors; ++i) v[i] /= V{} + by;
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
      if (L > 1 && stride == 1) {
        store_wide<T, W>(p + v * W, value[v], left);
      } else {
        for (int l = 0; l < W && l < left; ++l) R::store_one(p + (v * W + l) * stride, value[v][l]);
      }
    }
  }

  // f(offsets of the four cells in the window, their weights) over the samples of a bin.
  template <class F>
  __attribute__((always_inline)) void for_samples(const int64_t* starts, int64_t i, int64_t j,
                                                  const F& f) const {
    const int64_t *rows = starts + 1, *cols = rows + ph + 1;
    for (int64_t y = rows[i]; y < rows[i + 1]; ++y) {
      const cpu::RoiSample& row = a.samples[y];
      const int64_t low = (row.low - g.row) * g.cols, high = (row.high - g.row) * g.cols;
      const S ly = static_cast<S>(row.of_high), hy = static_cast<S>(row.of_low);
      for (int64_t x = cols[j]; x < cols[j + 1]; ++x) {
        const cpu::RoiSample& col = a.samples[x];
        const int64_t left = col.low - g.col, right = col.high - g.col;
        const S lx = static_cast<S>(col.of_high), hx = static_cast<S>(col.of_low);
        f((low + left) * L, (low + right) * L, (high + left) * L, (high + right) * L, hy * hx,
          hy * lx, ly * hx, ly * lx);
      }
    }
  }

  // Scratch: the window; a box as [bin, L], to be turned.
  void align(S* window) const {
    const R reader{a.roi, g, channel};
    reader.pack_input(window);
    S* const values = window + g.rows * g.cols * L;
    const bool straight = L > 1 && a.roi.pooled_strides.channel == 1;
    for (int64_t n = 0; n < g.count; ++n) {
      const int64_t k = g.boxes[n];
      const int64_t* const starts = a.starts + k * a.starts_width;
      const S count = static_cast<S>(a.counts[k]);
      T* const out = static_cast<T*>(a.roi.pooled);
      for (int64_t i = 0; i < ph; ++i)
        for (int64_t j = 0; j < pw; ++j) {
          V sum[kVectors];
          clear(sum);
          for_samples(starts, i, j,
                      [&](int64_t p1, int64_t p2, int64_t p3, int64_t p4, S w1, S w2, S w3, S w4)
                          __attribute__((always_inline)) {
#pragma GCC unroll 2
                            for (int v = 0; v < kVectors; ++v) {
                              const S* const from = window + v * W;
                              sum[v] += R::load(from + p1) * w1 + R::load(from + p2) * w2 +
                                        R::load(from + p3) * w3 + R::load(from + p4) * w4;
                            }
                          });
          divide(sum, count);
          const int64_t b = i * pw + j;
          if (straight) {
            store_pooled(out + place(k, b), sum);
          } else {
            for (int v = 0; v < kVectors; ++v) R::store(values + b * L + v * W, sum[v]);
          }
        }
      if (straight) continue;
      for (int64_t l = 0; l < channels; ++l) {
        T* const to = out + place(k, 0) + l * a.roi.pooled_strides.channel;
        for (int64_t b = 0; b < bins; ++b)
          R::store_one(to + b * a.roi.pooled_strides.col, values[b * L + l]);
      }
    }
  }

  void align_grad(S* window) const {
    __builtin_memset(window, 0, g.rows * g.cols * L * sizeof(S));
    for (int64_t n = 0; n < g.count; ++n) {
      const int64_t k = g.boxes[n];
      const S count = static_cast<S>(a.counts[k]);
      for (int64_t b = 0; b < bins; ++b) {
        V grad[kVectors];
        for (int v = 0; v < kVectors; ++v)
          grad[v] = load_pooled(static_cast<const T*>(a.roi.pooled) + place(k, b), v);
        divide(grad, count);
        for_samples(a.starts + k * a.starts_width, b / pw, b % pw,
                    [&](int64_t p1, int64_t p2, int64_t p3, int64_t p4, S w1, S w2, S w3, S w4)
                        __attribute__((always_inline)) {
                          for (int v = 0; v < kVectors; ++v) {
                            S* const to = window + v * W;
                            R::store(to + p1, R::load(to + p1) + grad[v] * w1);
                            R::store(to + p2, R::load(to + p2) + grad[v] * w2);
                            R::store(to + p3, R::load(to + p3) + grad[v] * w3);
                            R::store(to + p4, R::load(to + p4) + grad[v] * w4);
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
  // The cells of that bin of all boxes of the group.
  cpu::RoiGroup window_of_bin(int64_t b) const {
    int64_t row = INT64_MAX, row_end = 0, col = INT64_MAX, col_end = 0;
    for (int64_t n = 0; n < g.count; ++n) {
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

  void ps_pool(S* window) const {
    for (int64_t b = 0; b < bins; ++b) {
      const cpu::RoiArgs args = of_bin(b);
      const cpu::RoiGroup own = window_of_bin(b);
      R{args, own, channel}.pack_input(window);
      for (int64_t n = 0; n < g.count; ++n) {
        const int64_t k = g.boxes[n];
        const Edges e = edges(k, b);
        V sum[kVectors];
        clear(sum);
        if (!e.empty()) {
          for (int64_t y = e.row; y < e.row_end; ++y) {
            const S* from = window + ((y - own.row) * own.cols + e.col - own.col) * L;
            for (int64_t x = e.col; x < e.col_end; ++x, from += L)
              for (int v = 0; v < kVectors; ++v) sum[v] += R::load(from + v * W);
          }
          divide(sum, static_cast<S>((e.row_end - e.row) * (e.col_end - e.col)));
        }
        store_pooled(static_cast<T*>(a.roi.pooled) + place(k, b), sum);
      }
    }
  }

  void ps_pool_grad(S* window) const {
    for (int64_t b = 0; b < bins; ++b) {
      const cpu::RoiArgs args = of_bin(b);
      const cpu::RoiGroup own = window_of_bin(b);
      if (own.rows == 0) continue;
      __builtin_memset(window, 0, own.rows * own.cols * L * sizeof(S));
      for (int64_t n = 0; n < g.count; ++n) {
        const int64_t k = g.boxes[n];
        const Edges e = edges(k, b);
        if (e.empty()) continue;
        V grad[kVectors];
        for (int v = 0; v < kVectors; ++v)
          grad[v] = load_pooled(static_cast<const T*>(a.roi.pooled) + place(k, b), v);
        divide(grad, static_cast<S>((e.row_end - e.row) * (e.col_end - e.col)));
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
