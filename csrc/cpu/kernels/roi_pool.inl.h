// ROI max pooling and its gradient; torch-free.
//
// Data flow.  roi_pool takes the maxima of all bins in a window of scratch (roi_window.inl.h) and
// writes each output once, 4 bytes or 8 with argmax.  Its gradient reads the gradients and argmax
// of all boxes once, adds them to a window of scratch as [cell, L], or to the planes of grad_input
// themselves, and writes all of grad_input once, past the cache where it is larger than that.
#pragma once
#include "cpu/kernels/roi_window.inl.h"

namespace amstel::AMSTEL_ISA {

template <class T, int L>
struct RoiPool : Roi<T, L> {
  using R = Roi<T, L>;
  using R::a, R::g, R::channel, R::channels, R::bins, R::pw;
  using R::for_bins, R::left, R::load, R::pack_input, R::store, R::store_one, R::write_grad_input;
  using typename R::Bin;
  using typename R::S;
  using typename R::V;
  static constexpr int kVectors = R::kVectors, W = R::W;

  // Scratch: the window; strips, and where their maxima are; a box as [bin, L] of values and of
  // argmax, and the same turned to [L, bin].
  template <bool kArgmax>
  void pool(S* window) const {
    pack_input(window);
    S* const rows = window + g.rows * g.cols * L;
    if (g.strips) this->template take_strips<kArgmax>(window, rows);
    S* const values = rows + (kArgmax ? 2 : 1) * g.strip_rows * L;
    auto* const cells = reinterpret_cast<int32_t*>(values + bins * L);
    S* const turned = values + 2 * bins * L;
    const bool straight = L > 1 && a.pooled_strides.channel == 1;
    for (int64_t k = 0; k < g.count; ++k) {
      const int64_t first = g.boxes[k] * a.pooled_strides.item + channel * a.pooled_strides.channel;
      T* const out = static_cast<T*>(a.pooled) + first;
      int32_t* const argmax = kArgmax ? a.argmax + first : nullptr;
      for_bins(g.boxes[k], [&](int64_t i, int64_t j, Bin bin) __attribute__((always_inline)) {
        const auto m = g.strips ? this->template from_strip<kArgmax>(rows, k, j, bin)
                                : this->template maximum<kArgmax>(window, bin,
                                                                  g.row * a.width + g.col, a.width);
        const int64_t b = i * pw + j;
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const auto cell = __builtin_convertvector(m.cell[v], Vector<int32_t, W>);
          const int64_t at = b * a.pooled_strides.col + v * W;
          if (!straight) {
            store(values + b * L + v * W, m.value[v]);
            if constexpr (kArgmax) store(cells + b * L + v * W, cell);
          } else if (left(v) >= W && a.stream) {
            stream_wide<W>(out + at, m.value[v]);
            if constexpr (kArgmax) stream(argmax + at, cell);
          } else if (left(v) > 0) {
            store_wide<T, W>(out + at, m.value[v], left(v));
            if constexpr (kArgmax)
              __builtin_memcpy(argmax + at, &cell, (left(v) < W ? left(v) : W) * sizeof(int32_t));
          }
        }
      });
      if (straight) continue;
      turn(values, reinterpret_cast<T*>(turned), out);
      if constexpr (kArgmax) turn(cells, reinterpret_cast<int32_t*>(turned), argmax);
    }
    if (a.stream) stream_end();
  }

  // A box from [bin, L] to its place, at once where its channels lie one behind the other.
  template <class From, class To>
  void turn(const From* box, To* turned, To* out) const {
    const auto& p = a.pooled_strides;  // channels last too, where the tile is narrow
    const bool whole = p.col == 1 && p.channel == bins;
    To* const to = whole ? turned : out;
    int64_t done = 0;
    if constexpr (L >= 4 && 4 * sizeof(From) <= kVectorBytes) {
      for (; p.col == 1 && done + 4 <= channels; done += 4) {
        int64_t b = 0;
        for (; b + 4 <= bins; b += 4) turn_block(box + b * L + done, to + done * p.channel + b);
        for (; b < bins; ++b)
          for (int64_t l = done; l < done + 4; ++l) put(to + l * p.channel + b, box[b * L + l]);
      }
    }
    for (int64_t l = done; l < channels; ++l)
      for (int64_t b = 0; b < bins; ++b) put(to + l * p.channel + b * p.col, box[b * L + l]);
    if (!whole) return;
    using Line = Vector<int32_t, kVectorBytes / 4>;
    constexpr int64_t kLine = sizeof(Line) / sizeof(To);
    done = 0;
    if (a.stream && reinterpret_cast<uintptr_t>(out) % sizeof(Line) == 0)
      for (; done + kLine <= channels * bins; done += kLine)
        stream(out + done, load_raw<Line>(turned + done));
    __builtin_memcpy(out + done, turned + done, (channels * bins - done) * sizeof(To));
  }

  // Four bins of four channels.
  template <class From, class To>
  __attribute__((always_inline)) void turn_block(const From* from, To* to) const {
    using Q = Vector<From, 4>;
    const Q a0 = load_raw<Q>(from), a1 = load_raw<Q>(from + L), a2 = load_raw<Q>(from + 2 * L),
            a3 = load_raw<Q>(from + 3 * L);
    const Q b0 = __builtin_shufflevector(a0, a1, 0, 4, 1, 5),
            b1 = __builtin_shufflevector(a0, a1, 2, 6, 3, 7),
            b2 = __builtin_shufflevector(a2, a3, 0, 4, 1, 5),
            b3 = __builtin_shufflevector(a2, a3, 2, 6, 3, 7);
    const Q c[4] = {
        __builtin_shufflevector(b0, b2, 0, 1, 4, 5), __builtin_shufflevector(b0, b2, 2, 3, 6, 7),
        __builtin_shufflevector(b1, b3, 0, 1, 4, 5), __builtin_shufflevector(b1, b3, 2, 3, 6, 7)};
#pragma GCC unroll 4
    for (int64_t k = 0; k < 4; ++k) {
      if constexpr (__is_same(From, To))
        store(to + k * a.pooled_strides.channel, c[k]);
      else
        store_wide<4>(to + k * a.pooled_strides.channel, c[k]);
    }
  }
  template <class From, class To>
  static void put(To* to, From value) {
    if constexpr (__is_same(From, To))
      *to = value;
    else
      store_one(to, value);
  }

  // Adds in the order of the boxes and of their bins, at positions of the whole map: to grad_input
  // itself, a plane a channel, or to scratch.
  void pool_grad(S* window) const {
    const bool planes = __is_same(T, S) && a.grad_strides.col == 1;
    const bool bad = planes ? add_to_planes() : add_to_window(window);
    if (bad) __atomic_store_n(a.bad_argmax, true, __ATOMIC_RELAXED);
    if (!planes) write_grad_input(window, 0, a.width, true);
  }

  // Where the gradient and argmax of box k of the group begin, and how far the next box is: that is
  // far away in memory, and is fetched while this one is added.
  struct Source {
    const T* grad;
    const int32_t* argmax;
    int64_t next_grad, next_argmax;
  };
  Source source(int64_t k) const {
    const auto &p = a.pooled_strides, &q = a.argmax_strides;
    const int64_t next = k + 1 < g.count ? g.boxes[k + 1] - g.boxes[k] : 0;
    return {static_cast<const T*>(a.pooled) + g.boxes[k] * p.item + channel * p.channel,
            a.argmax + g.boxes[k] * q.item + channel * q.channel, next * p.item, next * q.item};
  }

  // Few planes at a time: what the boxes cover of them stays in the first-level cache.
  bool add_to_planes() const {
    constexpr int64_t kPlanes = 8;
    const auto &p = a.pooled_strides, &q = a.argmax_strides;
    const int64_t cells = a.height * a.width;
    S* const image = static_cast<S*>(a.grad_input) + g.image * a.grad_strides.item +
                     channel * a.grad_strides.channel;
    bool bad = false;
    for (int64_t c = 0; c < channels; c += kPlanes) {
      const int64_t end = c + kPlanes < channels ? c + kPlanes : channels;
      __builtin_memset(image + c * cells, 0, (end - c) * cells * sizeof(S));
      for (int64_t k = 0; k < g.count; ++k) {
        const Source s = source(k);
        for (int64_t l = c; l < end; ++l) {
          const T* const from = s.grad + l * p.channel;
          const int32_t* const cell = s.argmax + l * q.channel;
          for (int64_t b = 0; b < bins; b += 64 / sizeof(T)) {
            __builtin_prefetch(from + s.next_grad + b * p.col);
            __builtin_prefetch(cell + s.next_argmax + b * q.col);
          }
          // Strides that the compiler knows make the look at all positions a few instructions.
          bad |= p.col == 1 && q.col == 1 ? add_bins(image + l * cells, from, cell, 1, 1)
                                          : add_bins(image + l * cells, from, cell, p.col, q.col);
        }
      }
    }
    return bad;
  }

  // The bins of a box and channel to their plane; whether a position is not valid.
  __attribute__((always_inline)) bool add_bins(S* to, const T* from, const int32_t* argmax,
                                               int64_t stride, int64_t argmax_stride) const {
    const auto first = static_cast<uint32_t>(g.row * a.width);
    const auto cells = static_cast<uint32_t>(g.rows * a.width);
    const auto outside = [&](int64_t b) {
      return static_cast<uint32_t>(argmax[b * argmax_stride]) - first >= cells;
    };
    uint32_t any = 0;
    for (int64_t b = 0; b < bins; ++b) any |= outside(b);
    bool bad = false;
    if (!any) [[likely]] {
#pragma GCC unroll 8
      for (int64_t b = 0; b < bins; ++b)
        to[static_cast<uint32_t>(argmax[b * argmax_stride])] += load_one(from + b * stride);
      return bad;
    }
    for (int64_t b = 0; b < bins; ++b) {
      const int64_t cell = argmax[b * argmax_stride];
      if (!outside(b))
        to[cell] += load_one(from + b * stride);
      else
        bad |= cell != -1;
    }
    return bad;
  }

  // Whole rows of the map as [cell, L], and one cell more, which takes what belongs nowhere, so
  // that no channel is a branch.
  bool add_to_window(S* window) const {
    using P = Vector<int32_t, W>;
    const auto &p = a.pooled_strides, &q = a.argmax_strides;
    const int64_t first = g.row * a.width, cells = g.rows * a.width;
    const bool abreast = L > 1 && channels == L && p.channel == 1 && q.channel == 1;
    P lane{}, wrong{};
    for (int l = 0; l < W; ++l) lane[l] = l;
    bool bad = false;
    __builtin_memset(window, 0, (cells + 1) * L * sizeof(S));
    for (int64_t k = 0; k < g.count; ++k) {
      const Source s = source(k);
      for (int64_t b = 0; b < bins; ++b) {
        const T* const from = s.grad + b * p.col;
        const int32_t* const argmax = s.argmax + b * q.col;
        // Only to the second level: bins lie a power of two apart where channels do, and those of a
        // box would push each other out of the few sets of the first level that they fall into.
        for (int64_t l = 0; l < channels; l += 64 / sizeof(T)) {
          __builtin_prefetch(from + s.next_grad + l * p.channel, 0, 2);
          __builtin_prefetch(argmax + s.next_argmax + l * q.channel, 0, 2);
        }
        if (abreast) {
          alignas(64) int32_t place[L];
          alignas(64) S values[L];
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            using U = Vector<uint32_t, W>;
            const P position = load_raw<P>(argmax + v * W);
            const P cell = position - static_cast<int32_t>(first);
            const P inside = (P)((U)cell < static_cast<uint32_t>(cells));
            wrong |= ~inside & (P)(position != -1);
            const P to = select<P>(inside, cell, P{} + static_cast<int32_t>(cells));
            store(place + v * W, to * L + (lane + v * W));
            if constexpr (!__is_same(T, S)) store(values + v * W, load_wide<W>(from + v * W));
          }
#pragma GCC unroll 32
          for (int l = 0; l < L; ++l) {
            if constexpr (__is_same(T, S))
              window[place[l]] += from[l];
            else
              window[place[l]] += values[l];
          }
          continue;
        }
        for (int64_t l = 0; l < channels; ++l) {
          const int64_t position = argmax[l * q.channel], cell = position - first;
          if (static_cast<uint64_t>(cell) < static_cast<uint64_t>(cells)) [[likely]]
            window[cell * L + l] += load_one(from + l * p.channel);
          else
            bad |= position != -1;
        }
      }
    }
    for (int l = 0; l < W; ++l) bad |= wrong[l] != 0;
    return bad;
  }
};

// The entries of the table of kernels.
template <class T, int L>
void roi_pool(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  const RoiPool<T, L> roi{{a, g, channel}};
  auto* const s = static_cast<Sum<T>*>(scratch);
  a.argmax ? roi.template pool<true>(s) : roi.template pool<false>(s);
}
template <class T, int L>
void roi_pool_grad(const cpu::RoiArgs& a, const cpu::RoiGroup& g, int64_t channel, void* scratch) {
  RoiPool<T, L>{{a, g, channel}}.pool_grad(static_cast<Sum<T>*>(scratch));
}

}  // namespace amstel::AMSTEL_ISA
