// Gates of a ConvGRU, forward and backward, in one pass over the pre-activations; torch-free.
//
// Data flow.  A row holds the three gates of `inner` cells side by side, r z n: a pixel of a
// channels_last tensor (inner = C), or a whole image of a contiguous one (inner = C H W).  Forward
// reads the gates of x and of h and the state, writes the new state and, where a gradient will be
// asked, r, z, n and the n gate of h: 3 + 3 + 1 numbers read and 1 (5) written a cell.  Backward
// reads those, the state and the gradient and writes the gradients of both gates and of the state:
// 6 read, 7 written. Everything is read and written once.  Threads own rows.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/activation.h"

namespace amstel::AMSTEL_ISA {

// M vectors of cells at once; where kWhole is false the last one holds but `left` cells.
template <class T, int M, bool kWhole>
inline __attribute__((always_inline)) void conv_gru_cells(const T* x, const T* g, const T* h,
                                                          T* h_out, T* activated, bool past_caches,
                                                          int64_t inner, int64_t left) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  constexpr bool kShort = sizeof(T) == 2;
  using V = Vector<S, W>;
  const auto load = [&](const T* p, int gate, int m) __attribute__((always_inline)) {
    p += gate * inner + m * W;
    if (m * W * sizeof(T) % 64 == 0) fetch_ahead(p);
    return kWhole ? load_wide<W>(p) : load_wide<T, W>(p, left);
  };
  const auto store = [&](T* p, int gate, int m, V v) __attribute__((always_inline)) {
    p += gate * inner + m * W;
    if (m * W * sizeof(T) % 64 == 0) fetch_ahead(p);
    kWhole ? store_wide<W>(p, v) : store_wide<T, W>(p, v, left);
  };
  V r[M], z[M], n[M], h_n[M];
  each<M>([&](int m) { r[m] = load(x, 0, m) + load(g, 0, m); });
  sigmoids<kShort, S, W, M>(r);
  each<M>([&](int m) { z[m] = load(x, 1, m) + load(g, 1, m); });
  sigmoids<kShort, S, W, M>(z);
  each<M>([&](int m) { h_n[m] = load(g, 2, m), n[m] = load(x, 2, m) + r[m] * h_n[m]; });
  tanhs<kShort, S, W, M>(n);
  each<M>([&](int m) {
    store(h_out, 0, m, rounded((1 - z[m]) * n[m]) + z[m] * load(h, 0, m));
    if (!activated) return;
    const V kept[4] = {r[m], z[m], n[m], h_n[m]};
    if (kWhole && past_caches)
      each<4>([&](int gate) { stream_wide<W>(activated + gate * inner + m * W, kept[gate]); });
    else
      each<4>([&](int gate) { store(activated, gate, m, kept[gate]); });
  });
}

template <class T>
void conv_gru_gates(const cpu::ConvGruArgs& a, int64_t begin, int64_t end) {
  const int64_t inner = a.inner;
  for (int64_t row = begin; row < end; ++row) {
    const T* const x = static_cast<const T*>(a.gates_x) + row * 3 * inner;
    const T* const g = static_cast<const T*>(a.gates_h) + row * 3 * inner;
    const T* const h = static_cast<const T*>(a.h) + row * inner;
    T* const h_out = static_cast<T*>(a.h_out) + row * inner;
    T* const activated = a.activated ? static_cast<T*>(a.activated) + row * 4 * inner : nullptr;
    vectors_of<T>(inner, [&]<int M, bool kWhole>(int64_t k) __attribute__((always_inline)) {
      conv_gru_cells<T, M, kWhole>(x + k, g + k, h + k, h_out + k,
                                   activated ? activated + k : nullptr, a.stream, inner, inner - k);
    });
  }
  if (a.stream) stream_end();
}

template <class T>
void conv_gru_gates_grad(const cpu::ConvGruGradArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  using V = Vector<S, W>;
  const int64_t inner = a.inner;
  for (int64_t row = begin; row < end; ++row) {
    const T* const activated = static_cast<const T*>(a.activated) + row * 4 * inner;
    const T* const h = static_cast<const T*>(a.h) + row * inner;
    const T* const grad = static_cast<const T*>(a.grad) + row * inner;
    T* const grad_x = static_cast<T*>(a.grad_gates_x) + row * 3 * inner;
    T* const grad_g = static_cast<T*>(a.grad_gates_h) + row * 3 * inner;
    T* const grad_h = static_cast<T*>(a.grad_h) + row * inner;
    for (int64_t k = 0; k < inner; k += W) {
      const int64_t left = inner - k;
      const auto load = [&](const T* p, int at) __attribute__((always_inline)) {
        p += at * inner + k;
        if (k * sizeof(T) % 64 == 0) fetch_ahead(p);
        return load_wide<T, W>(p, left);
      };
      const auto store = [&](T* p, int at, V v) __attribute__((always_inline)) {
        p += at * inner + k;
        if (k * sizeof(T) % 64 == 0) fetch_ahead(p);
        store_wide<T, W>(p, v, left);
      };
      const V r = load(activated, 0), z = load(activated, 1), n = load(activated, 2);
      const V d = load(grad, 0);
      const V d_n = d * (1 - z) * (1 - n * n);
      const V d_z = d * (load(h, 0) - n) * (z * (1 - z));
      const V d_r = d_n * load(activated, 3) * (r * (1 - r));
      store(grad_x, 0, d_r), store(grad_g, 0, d_r);
      store(grad_x, 1, d_z), store(grad_g, 1, d_z);
      store(grad_x, 2, d_n), store(grad_g, 2, d_n * r);
      store(grad_h, 0, d * z);
    }
  }
}

}  // namespace amstel::AMSTEL_ISA
