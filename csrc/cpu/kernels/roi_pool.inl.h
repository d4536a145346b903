// ROI max pooling, its gradient, and the match of pooled maps with a query; torch-free.
//
// Data flow.  A call has one image, some of its boxes, and a tile of L channels.  It reads the
// window of cells that the boxes cover once, from any layout, widens it into scratch as [cell, L],
// and takes all maxima there: L channels abreast, no layout and no dtype in sight.  SINT's boxes
// overlap a hundred times, so that nearly all reading is of scratch, in the second-level cache, and
// bins of different boxes share the maxima of their rows.
// roi_pool writes each output once (4 bytes, 8 with argmax); roi_match keeps a sum of squares and
// an inner product and writes two numbers a box and tile; the gradients add to a window of scratch
// and write all of grad_input once.  Calls own channels and images, so that sums are the same for
// any number of threads.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/vector.h"

namespace amstel::AMSTEL_ISA {

// A vector of sums; tiles are of one or two: 64 or 128 bytes a cell with AVX-512.
template <class T>
constexpr int kRoiVector = kVectorBytes / sizeof(Sum<T>);

// Where a maximum starts, for every dtype, as in torchvision; -inf in the short ones.
constexpr float kLowest = -__FLT_MAX__;

template <class T, int L>
struct Roi {
  using S = Sum<T>;
  static constexpr int kVectors = L > kRoiVector<T> ? 2 : 1, W = L / kVectors;
  using V = Vector<S, W>;
  using Integer = std::conditional_t<sizeof(S) == 8, int64_t, int32_t>;
  using I = Vector<Integer, W>;

  const cpu::RoiArgs& a;
  const cpu::RoiGroup& g;
  const int64_t channel;
  const int64_t channels = a.channels - channel < L ? a.channels - channel : L;
  const int64_t ph = a.pooled_height, pw = a.pooled_width, bins = ph * pw;

  static V load(const S* p) { return load_raw<V>(p); }
  template <class U>
  static void store(void* p, U v) {
    __builtin_memcpy(p, &v, sizeof(v));
  }
  static void store_one(T* p, S v) { store_wide<1>(p, Vector<S, 1>{v}); }
  int64_t left(int v) const { return channels - v * W; }

  // The window as [cell, L], channels past the last zero.
  void pack_input(S* window) const {
    const T* x = static_cast<const T*>(a.input) + g.image * a.in.item + channel * a.in.channel +
                 g.row * a.in.row + g.col * a.in.col;
    for (int64_t r = 0; r < g.rows; ++r, x += a.in.row, window += g.cols * L) {
      if (L > 1 && a.in.channel == 1) {
        for (int64_t c = 0; c < g.cols; ++c)
          for (int v = 0; v < kVectors; ++v)
            store(window + c * L + v * W,
                  left(v) > 0 ? load_wide<T, W>(x + c * a.in.col + v * W, left(v)) : V{});
      } else {
        for (int64_t l = 0; l < L; ++l)
          for (int64_t c = 0; c < g.cols; ++c)
            window[c * L + l] = l < channels ? load_one(x + l * a.in.channel + c * a.in.col) : S(0);
      }
    }
  }

  void pack_query(S* query) const {
    const T* q = static_cast<const T*>(a.query) + channel * bins;
    for (int64_t l = 0; l < L; ++l)
      for (int64_t b = 0; b < bins; ++b)
        query[b * L + l] = l < channels ? load_one(q + l * bins + b) : S(0);
  }

  // The boundaries of a bin, in the window.
  struct Bin {
    int64_t row, row_end, col, col_end;
    bool empty() const { return row >= row_end || col >= col_end; }
  };

  // f(row and column of the bin, its boundaries) over the bins of a box.
  template <class F>
  void for_bins(int64_t box, const F& f) const {
    const int32_t* row = a.table + box * roi::table_width(ph, pw) + 1;
    const int32_t* col = row + 2 * ph;
    for (int64_t i = 0; i < ph; ++i)
      for (int64_t j = 0; j < pw; ++j)
        f(i, j, Bin{row[i] - g.row, row[ph + i] - g.row, col[j] - g.col, col[pw + j] - g.col});
  }

  // The first of the largest cells and its number, first + width * row + column of the window, or
  // -1; NaN is never larger. An empty bin has the value 0.
  struct Maximum {
    V value[kVectors];
    I cell[kVectors];
  };
  template <bool kCell>
  __attribute__((always_inline)) Maximum maximum(const S* window, Bin bin, int64_t first = 0,
                                                 int64_t width = 0) const {
    Maximum m;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      m.value[v] = V{} + (bin.empty() ? S(0) : S(kLowest));
      m.cell[v] = I{} - 1;
    }
    // A bin's width known to the compiler saves a branch a row that is hard to predict.
    switch (bin.empty() ? 0 : bin.col_end - bin.col) {
      case 0:
        break;
      case 1:
        add_rows<kCell, 1>(m, window, bin, first, width);
        break;
      case 2:
        add_rows<kCell, 2>(m, window, bin, first, width);
        break;
      case 3:
        add_rows<kCell, 3>(m, window, bin, first, width);
        break;
      case 4:
        add_rows<kCell, 4>(m, window, bin, first, width);
        break;
      case 5:
        add_rows<kCell, 5>(m, window, bin, first, width);
        break;
      case 6:
        add_rows<kCell, 6>(m, window, bin, first, width);
        break;
      default:
        add_rows<kCell, 0>(m, window, bin, first, width);
    }
    return m;
  }

  template <bool kCell, int kCols>
  __attribute__((always_inline)) void add_rows(Maximum& m, const S* window, Bin bin, int64_t first,
                                               int64_t width) const {
    const int64_t cols = kCols > 0 ? kCols : bin.col_end - bin.col;
    const S* row = window + (bin.row * g.cols + bin.col) * L;
    auto cell = static_cast<Integer>(first + bin.row * width + bin.col);
    for (int64_t r = bin.row; r < bin.row_end; ++r, row += g.cols * L, cell += width) {
#pragma GCC unroll 8
      for (int64_t c = 0; c < cols; ++c) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const V x = load(row + c * L + v * W);
          const I larger = x > m.value[v];
          m.value[v] = larger ? x : m.value[v];
          if constexpr (kCell)
            m.cell[v] = larger ? I{} + (cell + static_cast<Integer>(c)) : m.cell[v];
        }
      }
    }
  }

  // The row maxima of all strips, as [row, L]. The first of the largest in a row, then over rows,
  // is the first of the largest, so that even the sign of a zero is the same on both ways.
  void take_strips(const S* window, S* rows) const {
    for (int64_t i = 0; i < g.num_strips; ++i) {
      const cpu::RoiStrip& s = g.strips[i];
      for (int64_t r = s.row; r < s.row_end; ++r, rows += L) {
        const Bin row{r - g.row, r - g.row + 1, s.col - g.col, s.col_end - g.col};
        const Maximum m = maximum<false>(window, row);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) store(rows + v * W, m.value[v]);
      }
    }
  }

  // The maximum of the bin in column j of box k of the group.
  __attribute__((always_inline)) Maximum from_strip(const S* rows, int64_t k, int64_t j,
                                                    Bin bin) const {
    const int32_t number = g.strip_of[k * pw + j];
    Maximum m;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) m.value[v] = V{} + (bin.empty() ? S(0) : S(kLowest));
    if (bin.empty()) return m;
    const cpu::RoiStrip& s = g.strips[number];
    const S* p = rows + (s.first + bin.row + g.row - s.row) * L;
    for (int64_t r = bin.row; r < bin.row_end; ++r, p += L) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const V x = load(p + v * W);
        m.value[v] = x > m.value[v] ? x : m.value[v];
      }
    }
    return m;
  }

  // Scratch: the window; strips; a box as [bin, L] of values and of argmax, to be turned.
  template <bool kArgmax>
  void pool(S* window) const {
    pack_input(window);
    S* const rows = window + g.rows * g.cols * L;
    if (g.strips) take_strips(window, rows);
    S* const values = rows + g.strip_rows * L;
    auto* const cells = reinterpret_cast<int32_t*>(values + bins * L);
    const bool straight = L > 1 && a.pooled_strides.channel == 1;
    for (int64_t k = 0; k < g.count; ++k) {
      const int64_t first = g.boxes[k] * a.pooled_strides.item + channel * a.pooled_strides.channel;
      T* const out = static_cast<T*>(a.pooled) + first;
      int32_t* const argmax = kArgmax ? a.argmax + first : nullptr;
      for_bins(g.boxes[k], [&](int64_t i, int64_t j, Bin bin) __attribute__((always_inline)) {
        const Maximum m = !kArgmax && g.strips
                              ? from_strip(rows, k, j, bin)
                              : maximum<kArgmax>(window, bin, g.row * a.width + g.col, a.width);
        const int64_t b = i * pw + j;
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const auto cell = __builtin_convertvector(m.cell[v], Vector<int32_t, W>);
          if (!straight) {
            store(values + b * L + v * W, m.value[v]);
            if constexpr (kArgmax) store(cells + b * L + v * W, cell);
          } else if (left(v) > 0) {
            const int64_t at = b * a.pooled_strides.col + v * W;
            store_wide<T, W>(out + at, m.value[v], left(v));
            if constexpr (kArgmax)
              __builtin_memcpy(argmax + at, &cell, (left(v) < W ? left(v) : W) * sizeof(int32_t));
          }
        }
      });
      if (straight) continue;
      for (int64_t l = 0; l < channels; ++l) {
        const int64_t at = l * a.pooled_strides.channel;
        const int64_t next = a.pooled_strides.col;  // channels last too, where the tile is narrow
        for (int64_t b = 0; b < bins; ++b) store_one(out + at + b * next, values[b * L + l]);
        if constexpr (kArgmax)
          for (int64_t b = 0; b < bins; ++b) argmax[at + b * next] = cells[b * L + l];
      }
    }
  }

  // The window of the gradient, from rows of `width` cells; the rest of the image is zero already.
  void write_grad_input(const S* window, int64_t width) const {
    T* out = static_cast<T*>(a.grad_input) + g.image * a.grad_strides.item +
             channel * a.grad_strides.channel + g.row * a.grad_strides.row +
             g.col * a.grad_strides.col;
    for (int64_t r = 0; r < g.rows; ++r, out += a.grad_strides.row, window += width * L) {
      if (L > 1 && a.grad_strides.channel == 1) {
        for (int64_t c = 0; c < g.cols; ++c)
          for (int v = 0; v < kVectors && left(v) > 0; ++v) {
            T* const to = out + c * a.grad_strides.col + v * W;
            const S* const from = window + c * L + v * W;
            // Not by the store of a part of a vector, at which GCC 12 warns (-Warray-bounds) here.
            if (left(v) >= W)
              store_wide<W>(to, load(from));
            else
              for (int64_t l = 0; l < left(v); ++l) store_one(to + l, from[l]);
          }
      } else {
        for (int64_t l = 0; l < channels; ++l)
          for (int64_t c = 0; c < g.cols; ++c)
            store_one(out + l * a.grad_strides.channel + c * a.grad_strides.col, window[c * L + l]);
      }
    }
  }

  // Adds to whole rows of the map, so that positions in argmax are positions there: to grad_input
  // itself, a plane a channel, or to scratch as [cell, L]. Bins are neighbors, or channels are.
  // What the next box reads is far away in memory, and is fetched while this one is added.
  void pool_grad(S* window) const {
    const bool in_place = __is_same(T, S) && a.grad_strides.col == 1;
    const int64_t cells = g.rows * a.width, first = g.row * a.width;
    if (in_place) {
      window = static_cast<S*>(a.grad_input) + g.image * a.grad_strides.item +
               channel * a.grad_strides.channel + first;
    } else {
      __builtin_memset(window, 0, cells * L * sizeof(S));
    }
    const auto &p = a.pooled_strides, &q = a.argmax_strides;
    bool bad = false;
    for (int64_t k = 0; k < g.count; ++k) {
      const int64_t next = k + 1 < g.count ? g.boxes[k + 1] - g.boxes[k] : 0;
      const T* const grad =
          static_cast<const T*>(a.pooled) + g.boxes[k] * p.item + channel * p.channel;
      const int32_t* const argmax = a.argmax + g.boxes[k] * q.item + channel * q.channel;
      const auto add = [&](S* to, int64_t stride, const T* from,
                           int64_t position) __attribute__((always_inline)) {
        const int64_t cell = position - first;
        if (static_cast<uint64_t>(cell) < static_cast<uint64_t>(cells)) [[likely]]
          to[cell * stride] += load_one(from);
        else
          bad |= position != -1;
      };
      if (in_place) {
        for (int64_t l = 0; l < channels; ++l) {
          const T* const from = grad + l * p.channel;
          const int32_t* const cell = argmax + l * q.channel;
          S* const to = window + l * a.grad_strides.channel;
          for (int64_t b = 0; b < bins; b += 64 / sizeof(T)) {
            __builtin_prefetch(from + next * p.item + b * p.col);
            __builtin_prefetch(cell + next * q.item + b * q.col);
          }
          for (int64_t b = 0; b < bins; ++b) add(to, 1, from + b * p.col, cell[b * q.col]);
        }
      } else {
        for (int64_t b = 0; b < bins; ++b) {
          const T* const from = grad + b * p.col;
          const int32_t* const cell = argmax + b * q.col;
          for (int64_t l = 0; l < channels; l += 64 / sizeof(T)) {
            __builtin_prefetch(from + next * p.item + l * p.channel);
            __builtin_prefetch(cell + next * q.item + l * q.channel);
          }
          for (int64_t l = 0; l < channels; ++l)
            add(window + l, L, from + l * p.channel, cell[l * q.channel]);
        }
      }
    }
    if (bad) __atomic_store_n(a.bad_argmax, true, __ATOMIC_RELAXED);
    if (!in_place) write_grad_input(window + g.col * L, a.width);
  }

  // Scratch: the window, strips, and the query as [bin, L].
  void match(S* window) const {
    S* const rows = window + g.rows * g.cols * L;
    S* const query = rows + g.strip_rows * L;
    pack_input(window);
    if (g.strips) take_strips(window, rows);
    pack_query(query);
    S* const sums = static_cast<S*>(a.sums) + channel / L * a.tile_sums;
    for (int64_t k = 0; k < g.count; ++k) {
      V square[kVectors] = {}, dot[kVectors] = {};
      for_bins(g.boxes[k], [&](int64_t i, int64_t j, Bin bin) __attribute__((always_inline)) {
        if (bin.empty()) return;
        const Maximum m = g.strips ? from_strip(rows, k, j, bin) : maximum<false>(window, bin);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          square[v] += m.value[v] * m.value[v];
          dot[v] += m.value[v] * load(query + (i * pw + j) * L + v * W);
        }
      });
      for (int v = 1; v < kVectors; ++v) square[0] += square[v], dot[0] += dot[v];
      sums[2 * g.boxes[k]] = reduce<S, W>(square[0]);
      sums[2 * g.boxes[k] + 1] = reduce<S, W>(dot[0]);
    }
  }

  // Scratch: the window, its gradient, the query and its gradient.
  void match_grad(S* window) const {
    const int64_t cells = g.rows * g.cols;
    S* const grad = window + cells * L;
    S* const query = grad + cells * L;
    S* const grad_query = query + bins * L;
    pack_input(window);
    pack_query(query);
    if (a.grad_input) __builtin_memset(grad, 0, cells * L * sizeof(S));
    __builtin_memset(grad_query, 0, bins * L * sizeof(S));
    const auto* coefficients = static_cast<const S*>(a.coefficients);
    for (int64_t k = 0; k < g.count; ++k) {
      const S of_query = coefficients[2 * g.boxes[k]], of_pooled = coefficients[2 * g.boxes[k] + 1];
      for_bins(g.boxes[k], [&](int64_t i, int64_t j, Bin bin) __attribute__((always_inline)) {
        if (bin.empty()) return;
        const Maximum m = maximum<true>(window, bin, 0, g.cols);
        const int64_t at = (i * pw + j) * L;
        for (int v = 0; v < kVectors; ++v) {
          S* const gq = grad_query + at + v * W;
          store(gq, load(gq) + of_query * m.value[v]);
          if (!a.grad_input) continue;
          const V value = of_query * load(query + at + v * W) + of_pooled * m.value[v];
          for (int l = 0; l < W; ++l)
            if (m.cell[v][l] >= 0) grad[m.cell[v][l] * L + v * W + l] += value[l];
        }
      });
    }
    if (a.grad_input) write_grad_input(grad, g.cols);
    if (a.grad_query) {
      S* const out = static_cast<S*>(a.grad_query) + channel * bins;
      for (int64_t l = 0; l < channels; ++l)
        for (int64_t b = 0; b < bins; ++b) out[l * bins + b] = grad_query[b * L + l];
    }
  }
};

// The entries of the table of kernels.
template <class T, int L>
void roi_pool(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  const Roi<T, L> roi{a, g, channel};
  auto* const s = static_cast<Sum<T>*>(scratch);
  a.argmax ? roi.template pool<true>(s) : roi.template pool<false>(s);
}
template <class T, int L>
void roi_pool_grad(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  Roi<T, L>{a, g, channel}.pool_grad(static_cast<Sum<T>*>(scratch));
}
template <class T, int L>
void roi_match(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  Roi<T, L>{a, g, channel}.match(static_cast<Sum<T>*>(scratch));
}
template <class T, int L>
void roi_match_grad(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  Roi<T, L>{a, g, channel}.match_grad(static_cast<Sum<T>*>(scratch));
}

template <class T, int L>
constexpr cpu::Kernels::Roi kRoi = {L, roi_pool<T, L>, roi_pool_grad<T, L>, roi_match<T, L>,
                                    roi_match_grad<T, L>};

}  // namespace amstel::AMSTEL_ISA
