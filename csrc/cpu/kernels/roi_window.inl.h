// What the kernels of ROI pooling have in common: a window of cells as [cell, L], the maxima of
// bins there, and the gradient of a window; torch-free.
//
// Data flow.  A call has one image, some of its boxes, and a tile of L channels.  It reads the
// window of cells that the boxes cover once, from any layout, widens it into scratch as [cell, L],
// and takes all maxima there: L channels abreast, no layout and no dtype in sight.  Many boxes
// overlap a hundred times, so that nearly all reading is of scratch, in the second-level cache, and
// bins of different boxes share the maxima of their rows, and where they are.  Calls own channels
// and images, so that sums are the same for any number of threads.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/transpose.h"
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

  // The window as [cell, L], channels past the last zero. Where it is of whole rows of a map, these
  // are one long row.
  void pack_input(S* window) const {
    const T* x = static_cast<const T*>(a.input) + g.image * a.in.item + channel * a.in.channel +
                 g.row * a.in.row + g.col * a.in.col;
    const bool whole = g.cols * a.in.col == a.in.row;
    const int64_t rows = whole ? 1 : g.rows, cols = whole ? g.rows * g.cols : g.cols;
    for (int64_t r = 0; r < rows; ++r, x += a.in.row, window += cols * L) {
      if (L > 1 && a.in.channel == 1) {
        for (int64_t c = 0; c < cols; ++c)
          for (int v = 0; v < kVectors; ++v)
            store(window + c * L + v * W,
                  left(v) > 0 ? load_wide<T, W>(x + c * a.in.col + v * W, left(v)) : V{});
      } else if (L > 1 && a.in.col == 1) {
        turn_row(x, cols, window);
      } else {
        for (int64_t l = 0; l < L; ++l)
          for (int64_t c = 0; c < cols; ++c)
            window[c * L + l] = l < channels ? load_one(x + l * a.in.channel + c * a.in.col) : S(0);
      }
    }
  }

  // Cells side by side in memory, a plane a channel, to [cell, L]: blocks of them are turned in
  // registers.
  void turn_row(const T* x, int64_t cols, S* window) const {
    for (int64_t c = 0; c < cols; c += W) {
      // The last block begins earlier where the row is not made of whole ones.
      const int64_t at = c + W <= cols || cols < W ? c : cols - W, n = cols - at;
      for (int v = 0; v < kVectors; ++v) {
        V block[W];
        const T* const from = x + v * W * a.in.channel + at;
#pragma GCC unroll 16
        for (int l = 0; l < W; ++l)
          block[l] = l < left(v) ? load_wide<T, W>(from + l * a.in.channel, n) : V{};
        transpose<S, W>(block);
        S* const to = window + at * L + v * W;
        if (n >= W) {
#pragma GCC unroll 16
          for (int l = 0; l < W; ++l) store(to + l * L, block[l]);
        } else {
          for (int l = 0; l < n; ++l) store(to + l * L, block[l]);
        }
      }
    }
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

  // The row maxima of all strips, as [row, L], and with kCell where they are, behind them. The
  // first of the largest in a row, then over rows, is the first of the largest, so that even the
  // sign of a zero is the same on both ways.
  template <bool kCell>
  void take_strips(const S* window, S* rows) const {
    auto* cells = reinterpret_cast<Integer*>(rows + g.strip_rows * L);
    const int64_t first = g.row * a.width + g.col;
    for (int64_t i = 0; i < g.num_strips; ++i) {
      const cpu::RoiStrip& s = g.strips[i];
      for (int64_t r = s.row; r < s.row_end; ++r, rows += L, cells += L) {
        const Bin row{r - g.row, r - g.row + 1, s.col - g.col, s.col_end - g.col};
        const Maximum m = maximum<kCell>(window, row, first, a.width);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          store(rows + v * W, m.value[v]);
          if constexpr (kCell) store(cells + v * W, m.cell[v]);
        }
      }
    }
  }

  // The maximum of the bin in column j of box k of the group.
  template <bool kCell>
  __attribute__((always_inline)) Maximum from_strip(const S* rows, int64_t k, int64_t j,
                                                    Bin bin) const {
    const int32_t number = g.strip_of[k * pw + j];
    Maximum m;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      m.value[v] = V{} + (bin.empty() ? S(0) : S(kLowest));
      m.cell[v] = I{} - 1;
    }
    if (bin.empty()) return m;
    const cpu::RoiStrip& s = g.strips[number];
    const int64_t first = (s.first + bin.row + g.row - s.row) * L;
    const S* p = rows + first;
    const auto* cell = reinterpret_cast<const Integer*>(rows + g.strip_rows * L) + first;
    for (int64_t r = bin.row; r < bin.row_end; ++r, p += L, cell += L) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const V x = load(p + v * W);
        const I larger = x > m.value[v];
        m.value[v] = larger ? x : m.value[v];
        if constexpr (kCell) m.cell[v] = larger ? load_raw<I>(cell + v * W) : m.cell[v];
      }
    }
    return m;
  }

  // The window, rows of `cols` cells from column `col` on, to the gradient of the image; with
  // `whole` zero to all the rest of it.
  void write_grad_input(const S* window, int64_t col, int64_t cols, bool whole) const {
    const int64_t top = whole ? 0 : g.row, bottom = whole ? a.height : g.row + g.rows;
    T* out = static_cast<T*>(a.grad_input) + g.image * a.grad_strides.item +
             channel * a.grad_strides.channel + top * a.grad_strides.row;
    for (int64_t r = top; r < bottom; ++r, out += a.grad_strides.row) {
      const bool inside = r >= g.row && r < g.row + g.rows;
      const int64_t first = inside ? col : a.width, last = inside ? col + cols : a.width;
      if (whole) write_cells(out, nullptr, first);
      if (inside)
        write_cells(out + first * a.grad_strides.col, window + (r - g.row) * cols * L, cols);
      if (whole) write_cells(out + last * a.grad_strides.col, nullptr, a.width - last);
    }
    if (a.stream) stream_end();
  }

  // Cells of a row from [cell, L], or zeros.
  void write_cells(T* out, const S* from, int64_t cells) const {
    if (L > 1 && a.grad_strides.channel == 1) {
      for (int64_t c = 0; c < cells; ++c)
        for (int v = 0; v < kVectors && left(v) > 0; ++v) {
          T* const to = out + c * a.grad_strides.col + v * W;
          const V value = from ? load(from + c * L + v * W) : V{};
          if (left(v) < W)
            for (int64_t l = 0; l < left(v); ++l) store_one(to + l, value[l]);
          else if (a.stream)
            stream_wide<W>(to, value);
          else
            store_wide<W>(to, value);
        }
    } else {
      for (int64_t l = 0; l < channels; ++l)
        for (int64_t c = 0; c < cells; ++c)
          store_one(out + l * a.grad_strides.channel + c * a.grad_strides.col,
                    from ? from[c * L + l] : S(0));
    }
  }
};

}  // namespace amstel::AMSTEL_ISA
