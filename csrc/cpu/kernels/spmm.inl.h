// Normalised sparse-dense product and its gradient, torch-free.
//
// spmm reads crow, col and (optionally) weight and scales once a feature tile, gathers one row of x
// an edge, and writes each row of y once: about 4 bytes an edge of structure, plus features *
// sizeof(T) an edge gathered and a row written. A tile of a row lives in registers from its first
// edge to bias and activation. Threads own rows, so sums never depend on their number.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/vector.h"

namespace amstel::AMSTEL_ISA {

#if defined(__AVX512F__)
constexpr int kTile = 16, kGradTile = 8;
#else
constexpr int kTile = 8, kGradTile = 4;
#endif

// weight[edge[k]] * scale[j], with what is absent left out.
template <class T, class I>
struct Coefficient {
  const I* edge;
  const T* weight;
  const Sum<T>* scale;
  Sum<T> operator()(int64_t k, int64_t j) const {
    Sum<T> c = 1;
    if (weight) c = load_one(weight + (edge ? static_cast<int64_t>(edge[k]) : k));
    if (scale) c *= scale[j];
    return c;
  }
};

template <class T, class I>
void spmm(const cpu::SpmmArgs& a, int64_t row_begin, int64_t row_end) {
  using S = Sum<T>;
  const auto* crow = static_cast<const I*>(a.crow);
  const auto* col = static_cast<const I*>(a.col);
  const auto* row_scale = static_cast<const S*>(a.row_scale);
  const auto* bias = static_cast<const T*>(a.bias);
  const auto* x = static_cast<const T*>(a.x);
  auto* y = static_cast<T*>(a.y);
  const Coefficient<T, I> coefficient{static_cast<const I*>(a.edge), static_cast<const T*>(a.weight),
                                      static_cast<const S*>(a.col_scale)};
  const S self_loops = static_cast<S>(a.self_loops);

  for_tiles<S, kTile>(a.features, [&](auto tile) {
    constexpr int W = decltype(tile)::width, N = decltype(tile)::vectors;
    for (int64_t i = row_begin; i < row_end; ++i) {
      Vector<S, W> sum[N] = {};
      if (self_loops != 0) {
        const S c = coefficient.scale ? self_loops * coefficient.scale[i] : self_loops;
        const T* row = x + i * a.x_stride + tile.begin;
        for (int v = 0; v < N; ++v) sum[v] = c * load<W>(row + tile.offset(v));
      }
      const int64_t end = crow[i + 1];
      for (int64_t k = crow[i]; k < end; ++k) {
        const int64_t j = col[k];
        const S c = coefficient(k, j);
        const T* row = x + j * a.x_stride + tile.begin;
        for (int v = 0; v < N; ++v) sum[v] += c * load<W>(row + tile.offset(v));
      }
      T* out = y + i * a.y_stride + tile.begin;
      for (int v = 0; v < N; ++v) {
        auto r = row_scale ? sum[v] * row_scale[i] : sum[v];
        if (bias) r += load<W>(bias + tile.begin + tile.offset(v));
        if (a.relu) r = r < 0 ? Vector<S, W>{} : r;
        store<W>(out + tile.offset(v), r);
      }
    }
  });
}

// Row j of the transposed matrix holds x[j] and the sum for grad_x[j] in registers and gathers each
// grad[i] once for both: grad_x += c grad[i], grad_weight = <grad[i], x[j]>.
template <class T, class I>
void spmm_grad(const cpu::SpmmGradArgs& a, int64_t row_begin, int64_t row_end) {
  using S = Sum<T>;
  const auto* crow = static_cast<const I*>(a.crow);
  const auto* col = static_cast<const I*>(a.col);
  const auto* edge = static_cast<const I*>(a.edge);
  const auto* row_scale = static_cast<const S*>(a.row_scale);
  const auto* col_scale = static_cast<const S*>(a.col_scale);
  const auto* grad = static_cast<const T*>(a.grad);
  const auto* x = static_cast<const T*>(a.x);
  auto* grad_x = static_cast<T*>(a.grad_x);
  auto* grad_weight = static_cast<S*>(a.grad_weight);
  auto* dot = static_cast<S*>(a.dot);
  auto* loop = static_cast<S*>(a.loop);
  const Coefficient<T, I> coefficient{edge, static_cast<const T*>(a.weight), row_scale};
  const S self_loops = static_cast<S>(a.self_loops);

  if (!a.accumulate) {
    for (int64_t j = row_begin; j < row_end; ++j) {
      dot[j] = 0;
      if (loop) loop[j] = 0;
      if (a.features == 0)
        for (int64_t k = crow[j]; k < crow[j + 1]; ++k) grad_weight[edge[k]] = 0;
    }
  }
  for_tiles<S, kGradTile>(a.features, [&](auto tile) {
    constexpr int W = decltype(tile)::width, N = decltype(tile)::vectors;
    const bool add = a.accumulate || tile.begin > 0;
    for (int64_t j = row_begin; j < row_end; ++j) {
      const S scale_j = col_scale ? col_scale[j] : S(1);
      Vector<S, W> sum[N] = {}, x_j[N];
      for (int v = 0; v < N; ++v) x_j[v] = load<W>(x + j * a.x_stride + tile.begin + tile.offset(v));
      if (tile.repeated) x_j[N - 1] = drop_repeated<S, W>(x_j[N - 1], tile.repeated);
      const auto inner = [&](const Vector<S, W>* g) {
        Vector<S, W> d = x_j[0] * g[0];
        for (int v = 1; v < N; ++v) d += x_j[v] * g[v];
        return reduce<S, W>(d);
      };
      Vector<S, W> g[N];
      if (self_loops != 0) {
        const S c = row_scale ? self_loops * row_scale[j] : self_loops;
        for (int v = 0; v < N; ++v)
          g[v] = load<W>(grad + j * a.grad_stride + tile.begin + tile.offset(v));
        for (int v = 0; v < N; ++v) sum[v] = c * g[v];
        loop[j] += c * scale_j * inner(g);
      }
      const int64_t end = crow[j + 1];
      for (int64_t k = crow[j]; k < end; ++k) {
        const int64_t i = col[k];
        const S c = coefficient(k, i);
        for (int v = 0; v < N; ++v)
          g[v] = load<W>(grad + i * a.grad_stride + tile.begin + tile.offset(v));
        for (int v = 0; v < N; ++v) sum[v] += c * g[v];
        const S d = inner(g) * (row_scale ? row_scale[i] * scale_j : scale_j);
        S* out = grad_weight + edge[k];
        *out = add ? *out + d : d;
      }
      for (int v = 0; v < N; ++v) {
        sum[v] *= scale_j;
        if (grad_x) store<W>(grad_x + j * a.features + tile.begin + tile.offset(v), sum[v]);
      }
      dot[j] += inner(sum);
    }
  });
}

// Masks grad by the sign of the output and sums over the rows given, features in registers.
template <class T>
void epilogue_grad(const cpu::EpilogueArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  const auto* grad = static_cast<const T*>(a.grad);
  const auto* output = static_cast<const T*>(a.output);
  auto* grad_in = static_cast<T*>(a.grad_in);
  auto* total = static_cast<S*>(a.sum);
  for_tiles<S, 4>(a.features, [&](auto tile) {
    constexpr int W = decltype(tile)::width, N = decltype(tile)::vectors;
    Vector<S, W> sum[N] = {};
    for (int64_t i = begin; i < end; ++i) {
      for (int v = 0; v < N; ++v) {
        const int64_t f = tile.begin + tile.offset(v);
        auto g = load<W>(grad + i * a.grad_stride + f);
        if (output) {
          g = load<W>(output + i * a.output_stride + f) <= 0 ? Vector<S, W>{} : g;
          store<W>(grad_in + i * a.features + f, g);
        }
        sum[v] += g;
      }
    }
    for (int v = 0; v < N; ++v) store<W>(total + tile.begin + tile.offset(v), sum[v]);
  });
}

}  // namespace amstel::AMSTEL_ISA
