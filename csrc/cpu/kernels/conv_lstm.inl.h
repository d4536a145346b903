// Gates of a ConvLSTM, forward and backward, in one pass over the pre-activations; torch-free.
//
// Data flow.  A row holds the four gates of `inner` cells side by side, i f g o: a pixel of a
// channels_last tensor (inner = C), or a whole image of a contiguous one (inner = C H W).  Forward
// reads the pre-activations, or two whose sum they are, and the cell state, writes h and the new
// cell state and, where a gradient will be asked, the activated gates: 4 + 1 numbers read and 2 (6)
// written a cell.  Backward reads the activated gates, both cell states and the gradients of h and
// c, writes the gradients of the pre-activations and of the old cell state, and adds up its rows
// for bias and peepholes on the way.  Everything is read and written once; writing in place of what
// was read at the same position is allowed.  Threads own rows.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/activation.h"

namespace amstel::AMSTEL_ISA {

// The gates of M vectors of cells, and what they make of the cell state; h and gates will be stored
// as T.
template <class T, int W, int M>
struct Cells {
  using S = Sum<T>;
  using V = Vector<S, W>;
  static constexpr bool kShort = sizeof(T) == 2;
  V i[M], f[M], g[M], o[M], c[M], h[M];

  // i, f, g, o hold the pre-activations, c the old state; p_i, p_f, p_o(m) are the peepholes.
  template <class I, class F, class O>
  inline __attribute__((always_inline)) void step(bool peephole, const I& p_i, const F& p_f,
                                                  const O& p_o) {
    if (peephole) each<M>([&](int m) { i[m] += p_i(m) * c[m], f[m] += p_f(m) * c[m]; });
    sigmoids<kShort, S, W, M>(i);
    sigmoids<kShort, S, W, M>(f);
    tanhs<kShort, S, W, M>(g);
    each<M>([&](int m) { c[m] = f[m] * c[m] + rounded(i[m] * g[m]); });
    if (peephole) each<M>([&](int m) { o[m] += p_o(m) * c[m]; });
    sigmoids<kShort, S, W, M>(o);
    each<M>([&](int m) { h[m] = c[m]; });
    tanhs<kShort, S, W, M>(h);
    each<M>([&](int m) { h[m] *= o[m]; });
  }
};

// U is the type of the cell states: T, or that of the sums.
template <class T, class U>
void conv_lstm_gates(const cpu::ConvLstmArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  using V = Vector<S, W>;
  const int64_t inner = a.inner;
  const S* const peephole = static_cast<const S*>(a.peephole);
  const bool past_caches = a.stream;
  for (int64_t row = begin; row < end; ++row) {
    const T* const gates = static_cast<const T*>(a.gates) + row * 4 * inner;
    const T* const more = a.more ? static_cast<const T*>(a.more) + row * 4 * inner : nullptr;
    const U* const c_old = static_cast<const U*>(a.c) + row * inner;
    U* const c_new = static_cast<U*>(a.c_out) + row * inner;
    T* const h = static_cast<T*>(a.h) + row * inner;
    T* const activated = a.activated ? static_cast<T*>(a.activated) + row * 4 * inner : nullptr;
    // Cells [k, k + M W) of the row; the last vector may not be whole where kWhole is false.
    vectors_of<T>(inner, [&]<int M, bool kWhole>(int64_t k) __attribute__((always_inline)) {
      const auto load = [&]<class N>(const N* p, int gate, int m) __attribute__((always_inline)) {
        p += gate * inner + k + m * W;
        if (m * W * sizeof(N) % 64 == 0) fetch_ahead(p);
        return kWhole ? load_wide<W>(p) : load_wide<N, W>(p, inner - k);
      };
      const auto store = [&]<class N>(N* p, int gate, int m, V v) __attribute__((always_inline)) {
        p += gate * inner + k + m * W;
        if (m * W * sizeof(N) % 64 == 0) fetch_ahead(p);
        kWhole ? store_wide<W>(p, v) : store_wide<N, W>(p, v, inner - k);
      };
      Cells<T, W, M> cells;
      each<M>([&](int m) {
        cells.i[m] = load(gates, 0, m), cells.f[m] = load(gates, 1, m);
        cells.g[m] = load(gates, 2, m), cells.o[m] = load(gates, 3, m);
        cells.c[m] = load(c_old, 0, m);
      });
      if (more)
        each<M>([&](int m) {
          cells.i[m] += load(more, 0, m), cells.f[m] += load(more, 1, m);
          cells.g[m] += load(more, 2, m), cells.o[m] += load(more, 3, m);
        });
      const auto weight = [&](int gate) {
        return [&, gate](int m) __attribute__((always_inline)) { return load(peephole, gate, m); };
      };
      cells.step(peephole, weight(0), weight(1), weight(2));
      each<M>([&](int m) {
        store(c_new, 0, m, cells.c[m]);
        store(h, 0, m, cells.h[m]);
      });
      if (!activated) return;
      each<M>([&](int m) {
        const V kept[4] = {cells.i[m], cells.f[m], cells.g[m], cells.o[m]};
        if (kWhole && past_caches)
          each<4>(
              [&](int gate) { stream_wide<W>(activated + gate * inner + k + m * W, kept[gate]); });
        else
          each<4>([&](int gate) { store(activated, gate, m, kept[gate]); });
      });
    });
  }
  if (past_caches) stream_end();
}

template <class T, class U>
void conv_lstm_gates_grad(const cpu::ConvLstmGradArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  using V = Vector<S, W>;
  const int64_t inner = a.inner;
  const S* const p = static_cast<const S*>(a.peephole);
  S* const bias = static_cast<S*>(a.bias_sum);
  S* const peep = static_cast<S*>(a.peephole_sum);
  for (int64_t row = begin; row < end; ++row) {
    const T* const gates = static_cast<const T*>(a.activated) + row * 4 * inner;
    T* const grad = static_cast<T*>(a.grad_gates) + row * 4 * inner;
    const U* const c_old = static_cast<const U*>(a.c) + row * inner;
    const U* const c_new = static_cast<const U*>(a.c_out) + row * inner;
    const T* const grad_h = a.grad_h ? static_cast<const T*>(a.grad_h) + row * inner : nullptr;
    const T* const more =
        a.grad_h_more ? static_cast<const T*>(a.grad_h_more) + row * inner : nullptr;
    const U* const grad_c_in = a.grad_c ? static_cast<const U*>(a.grad_c) + row * inner : nullptr;
    U* const grad_c = static_cast<U*>(a.grad_c_out) + row * inner;
    // Cells [first, first + M W) of the row; the last vector may not be whole where kWhole is
    // false.
    const auto cells = [&]<int M, bool kWhole>(int64_t first) __attribute__((always_inline)) {
      const auto load = [&]<class N>(const N* p, int64_t k) __attribute__((always_inline)) {
        return kWhole ? load_wide<W>(p + k) : load_wide<N, W>(p + k, inner - first);
      };
      const auto read = [&]<class N>(const N* p, int64_t k) __attribute__((always_inline)) {
        if ((k - first) * sizeof(N) % 64 == 0) fetch_ahead(p + k);
        return load(p, k);
      };
      const auto store = [&]<class N>(N* p, int64_t k, V v) __attribute__((always_inline)) {
        kWhole ? store_wide<W>(p + k, v) : store_wide<N, W>(p + k, v, inner - first);
      };
      const auto write = [&]<class N>(N* p, int64_t k, V v) __attribute__((always_inline)) {
        if ((k - first) * sizeof(N) % 64 == 0) fetch_ahead(p + k);
        store(p, k, v);
      };
      V t[M];
      each<M>([&](int m) { t[m] = read(c_new, first + m * W); });
      tanhs<sizeof(T) == 2, S, W, M>(t);
      each<M>([&](int m) __attribute__((always_inline)) {
        const int64_t k = first + m * W;
        const V i = read(gates, k), f = read(gates + inner, k), g = read(gates + 2 * inner, k),
                o = read(gates + 3 * inner, k);
        const V c = read(c_old, k);
        V dh{};
        if (grad_h) dh += read(grad_h, k);
        if (more) dh += read(more, k);
        V dc{};
        if (grad_c_in) dc = read(grad_c_in, k);
        const V d_o = dh * t[m] * (o * (1 - o));
        dc += dh * o * (1 - t[m] * t[m]);
        if (p) dc += d_o * load(p + 2 * inner, k);
        const V d_i = dc * g * (i * (1 - i));
        const V d_f = dc * c * (f * (1 - f));
        const V d_g = dc * i * (1 - g * g);
        dc *= f;
        if (p) dc += rounded(d_i * load(p, k)) + d_f * load(p + inner, k);
        const auto add = [&](S* sum, V v)
                             __attribute__((always_inline)) { store(sum, k, load(sum, k) + v); };
        if (bias)
          add(bias, d_i), add(bias + inner, d_f), add(bias + 2 * inner, d_g),
              add(bias + 3 * inner, d_o);
        if (peep) {
          const V now = load(c_new, k);
          add(peep, d_i * c), add(peep + inner, d_f * c), add(peep + 2 * inner, d_o * now);
        }
        write(grad_c, k, dc);
        write(grad, k, d_i), write(grad + inner, k, d_f), write(grad + 2 * inner, k, d_g),
            write(grad + 3 * inner, k, d_o);
      });
    };
    vectors_of<T>(inner, cells);
  }
}

}  // namespace amstel::AMSTEL_ISA
