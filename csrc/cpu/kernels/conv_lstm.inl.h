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

// The gates of W cells, and what they make of the cell state; h and gates will be stored as T.
template <class T, int W>
struct Cells {
  using S = Sum<T>;
  using V = Vector<S, W>;
  static constexpr bool kShort = sizeof(T) == 2;
  V i, f, g, o, c, h;

  // i, f, g, o hold the pre-activations, c the old state; p_ are zero without peepholes. First the
  // new state, then what it gives.
  inline __attribute__((always_inline)) void update(bool peephole, V p_i, V p_f) {
    if (peephole) i += p_i * c, f += p_f * c;
    i = sigmoid<S, W, kShort>(i);
    f = sigmoid<S, W, kShort>(f);
    g = tanh<S, W, kShort>(g);
    c = f * c + i * g;
  }
  inline __attribute__((always_inline)) void output(bool peephole, V p_o) {
    if (peephole) o += p_o * c;
    o = sigmoid<S, W, kShort>(o);
    h = o * tanh<S, W, kShort>(c);
  }
  inline __attribute__((always_inline)) void step(bool peephole, V p_i, V p_f, V p_o) {
    update(peephole, p_i, p_f);
    output(peephole, p_o);
  }
};

template <class T>
void conv_lstm_gates(const cpu::ConvLstmArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  constexpr int W = kVectorBytes / sizeof(S);
  using V = Vector<S, W>;
  const int64_t inner = a.inner;
  const S* const p = static_cast<const S*>(a.peephole);
  // What a state gives hangs on a long chain of operations. It comes with the next vector, whose
  // chains the processor then has under way at the same time.
  struct {
    Cells<T, W> cells;
    V p_o;
    T *h, *o;
    int64_t n;
  } last{};
  const auto finish = [&]() __attribute__((always_inline)) {
    last.cells.output(p, last.p_o);
    store_wide<T, W>(last.h, last.cells.h, last.n);
    if (last.o) store_wide<T, W>(last.o, last.cells.o, last.n);
  };
  for (int64_t row = begin; row < end; ++row) {
    const T* const gates = static_cast<const T*>(a.gates) + row * 4 * inner;
    const T* const more = a.more ? static_cast<const T*>(a.more) + row * 4 * inner : nullptr;
    T* const activated = a.activated ? static_cast<T*>(a.activated) + row * 4 * inner : nullptr;
    const S* const c_old = static_cast<const S*>(a.c) + row * inner;
    S* const c_new = static_cast<S*>(a.c_out) + row * inner;
    T* const h = static_cast<T*>(a.h) + row * inner;
    for (int64_t k = 0; k < inner; k += W) {
      const int64_t n = inner - k;
      const auto gate = [&](int at) __attribute__((always_inline)) {
        V v = load_wide<T, W>(gates + at * inner + k, n);
        if (more) v += load_wide<T, W>(more + at * inner + k, n);
        return v;
      };
      if (last.h) finish();
      Cells<T, W> cells{gate(0), gate(1), gate(2), gate(3), load_wide<S, W>(c_old + k, n), {}};
      V p_i{}, p_f{}, p_o{};
      if (p) {
        p_i = load_wide<S, W>(p + k, n);
        p_f = load_wide<S, W>(p + inner + k, n);
        p_o = load_wide<S, W>(p + 2 * inner + k, n);
      }
      cells.update(p, p_i, p_f);
      store_wide<S, W>(c_new + k, cells.c, n);
      if (activated) {
        store_wide<T, W>(activated + k, cells.i, n);
        store_wide<T, W>(activated + inner + k, cells.f, n);
        store_wide<T, W>(activated + 2 * inner + k, cells.g, n);
      }
      last = {cells, p_o, h + k, activated ? activated + 3 * inner + k : nullptr, n};
    }
  }
  if (last.h) finish();
}

template <class T>
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
    const S* const c_old = static_cast<const S*>(a.c) + row * inner;
    const S* const c_new = static_cast<const S*>(a.c_out) + row * inner;
    const T* const grad_h = a.grad_h ? static_cast<const T*>(a.grad_h) + row * inner : nullptr;
    const T* const more =
        a.grad_h_more ? static_cast<const T*>(a.grad_h_more) + row * inner : nullptr;
    const S* const grad_c_in = a.grad_c ? static_cast<const S*>(a.grad_c) + row * inner : nullptr;
    S* const grad_c = static_cast<S*>(a.grad_c_out) + row * inner;
    for (int64_t k = 0; k < inner; k += W) {
      const int64_t n = inner - k;
      const V i = load_wide<T, W>(gates + k, n), f = load_wide<T, W>(gates + inner + k, n);
      const V g = load_wide<T, W>(gates + 2 * inner + k, n);
      const V o = load_wide<T, W>(gates + 3 * inner + k, n);
      const V c = load_wide<S, W>(c_old + k, n), now = load_wide<S, W>(c_new + k, n);
      V dh{};
      if (grad_h) dh += load_wide<T, W>(grad_h + k, n);
      if (more) dh += load_wide<T, W>(more + k, n);
      V dc{};
      if (grad_c_in) dc = load_wide<S, W>(grad_c_in + k, n);
      const V t = tanh<S, W, sizeof(T) == 2>(now);
      const V d_o = dh * t * (o * (1 - o));
      dc += dh * o * (1 - t * t);
      if (p) dc += d_o * load_wide<S, W>(p + 2 * inner + k, n);
      const V d_i = dc * g * (i * (1 - i));
      const V d_f = dc * c * (f * (1 - f));
      const V d_g = dc * i * (1 - g * g);
      dc *= f;
      if (p) dc += d_i * load_wide<S, W>(p + k, n) + d_f * load_wide<S, W>(p + inner + k, n);
      store_wide<S, W>(grad_c + k, dc, n);
      store_wide<T, W>(grad + k, d_i, n);
      store_wide<T, W>(grad + inner + k, d_f, n);
      store_wide<T, W>(grad + 2 * inner + k, d_g, n);
      store_wide<T, W>(grad + 3 * inner + k, d_o, n);
      const auto add = [&](S* sum, V v) __attribute__((always_inline)) {
        store_wide<S, W>(sum + k, load_wide<S, W>(sum + k, n) + v, n);
      };
      if (bias)
        add(bias, d_i), add(bias + inner, d_f), add(bias + 2 * inner, d_g),
            add(bias + 3 * inner, d_o);
      if (peep) add(peep, d_i * c), add(peep + inner, d_f * c), add(peep + 2 * inner, d_o * now);
    }
  }
}

}  // namespace amstel::AMSTEL_ISA
