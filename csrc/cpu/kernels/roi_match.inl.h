// The match of pooled maps with a query, and its gradients; torch-free.
//
// Data flow.  roi_match takes the maxima of all bins in a window of scratch (roi_window.inl.h),
// keeps a sum of squares and an inner product a box, and writes two numbers a box and tile: pooled
// maps are nowhere.  The gradients take the maxima again, with where they are, add to a second
// window and to the query's, and write all of grad_input once.
#pragma once
#include "cpu/kernels/roi_window.inl.h"

namespace amstel::AMSTEL_ISA {

template <class T, int L>
struct RoiMatch : Roi<T, L> {
  using R = Roi<T, L>;
  using R::a, R::g, R::channel, R::channels, R::bins, R::pw;
  using R::for_bins, R::load, R::pack_input, R::store, R::write_grad_input;
  using typename R::Bin;
  using typename R::S;
  using typename R::V;
  static constexpr int kVectors = R::kVectors, W = R::W;

  void pack_query(S* query) const {
    const T* q = static_cast<const T*>(a.query) + channel * bins;
    for (int64_t l = 0; l < L; ++l)
      for (int64_t b = 0; b < bins; ++b)
        query[b * L + l] = l < channels ? load_one(q + l * bins + b) : S(0);
  }

  // Scratch: the window, strips, and the query as [bin, L].
  void match(S* window) const {
    S* const rows = window + g.rows * g.cols * L;
    S* const query = rows + g.strip_rows * L;
    pack_input(window);
    if (g.strips) this->template take_strips<false>(window, rows);
    pack_query(query);
    S* const sums = static_cast<S*>(a.sums) + channel / L * a.tile_sums;
    for (int64_t k = 0; k < g.count; ++k) {
      V square[kVectors] = {}, dot[kVectors] = {};
      for_bins(g.boxes[k], [&](int64_t i, int64_t j, Bin bin) __attribute__((always_inline)) {
        if (bin.empty()) return;
        const auto m = g.strips ? this->template from_strip<false>(rows, k, j, bin)
                                : this->template maximum<false>(window, bin);
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
        const auto m = this->template maximum<true>(window, bin, 0, g.cols);
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
    if (a.grad_input) write_grad_input(grad, g.col, g.cols, true);
    if (a.grad_query) {
      S* const out = static_cast<S*>(a.grad_query) + channel * bins;
      for (int64_t l = 0; l < channels; ++l)
        for (int64_t b = 0; b < bins; ++b) out[l * bins + b] = grad_query[b * L + l];
    }
  }
};

// The entries of the table of kernels.
template <class T, int L>
void roi_match(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  RoiMatch<T, L>{{a, g, channel}}.match(static_cast<Sum<T>*>(scratch));
}
template <class T, int L>
void roi_match_grad(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  RoiMatch<T, L>{{a, g, channel}}.match_grad(static_cast<Sum<T>*>(scratch));
}

}  // namespace amstel::AMSTEL_ISA
