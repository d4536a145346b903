// The input of a recurrent inference machine's network, [eta, p Psi'(eta) g]; torch-free.
//
// Data flow.  eta and g are read once (of g = mask (Psi(eta) - y), y and mask), and both results
// are written once, to pixels of 2 C numbers: 2 (3) numbers read and 2 written a pixel and channel;
// backward as many, and with the logistic function, the only one that bends, eta and g again.
//
// Dense: where all that is read lies as pixels of C = 1 or 2 numbers, gray or complex, a thread
// takes as many as make 16 bytes of the network's side, so that a warp's accesses there are one
// run; grid.x are these, the last maybe cut short.
//
// Planes: where channels are planes, a block takes a tile of pixels, channel by channel in runs,
// and turns them around in shared memory: what it writes (backward, reads) on the network's side is
// one run of 16-byte accesses; grid.x are tiles.  Lanes along channels would touch 32 bytes a
// plane.
//
// Strided: for everything else blockDim.x lanes, a power of two, go along the channels and
// blockDim.y along pixels; grid.x are pixels.  Of all, grid.y are images.
#pragma once

#include "common/numbers.h"
#include "cuda/kernels/conv_lstm.cuh"  // sigmoid

namespace amstel::cuda {

template <typename S>
struct Planes {
  S* data;  // may be null for a mask
  int64_t item, channel, pixel;
};

template <typename T>
struct RimInputArgs {
  using S = Accumulate<T>;
  Planes<const S> eta, other, mask;
  const S* precision;  // null: 1
  double factor;
  int64_t residual, logistic;  // 0 or 1
  int64_t items, channels, pixels;
  T* out;         // or
  const T* grad;  // of it
  Planes<S> grad_eta;
  S* grad_other;    // laid out as grad_eta
  int64_t tile;     // planes: pixels of a block
  int64_t aligned;  // and whether every image of the network's side begins at 16 bytes
};

// What becomes of a number of eta and of other; T: the type of the network.
template <typename T>
struct RimCell {
  using S = Accumulate<T>;
  S factor;
  bool residual, logistic;

  __device__ __forceinline__ RimCell(const RimInputArgs<T>& a, int64_t item)
      : factor(static_cast<S>(a.factor) * (a.precision ? a.precision[item] : S(1))),
        residual(a.residual != 0),
        logistic(a.logistic != 0) {}

  __device__ __forceinline__ S gradient(S eta, S other, S mask) const {
    S x = eta, slope = 1;
    if (logistic) {
      x = sigmoid<T>(eta);
      slope = x * (1 - x);
    }
    return factor * (residual ? mask * (x - measured(other, mask)) : other) * slope;
  }
  // A choice, so that what was not measured may be anything.
  static __device__ __forceinline__ S measured(S other, S mask) { return mask == 0 ? S(0) : other; }

  // From the gradients of both results to those of eta and of other, which take their place.
  __device__ __forceinline__ void backward(S eta, S other, S mask, S& first, S& second) const {
    S x = eta, slope = 1, bend = 0;
    if (logistic) {
      x = sigmoid<S>(eta);
      slope = x * (1 - x);
      bend = slope * (1 - 2 * x);
    }
    const S d = second * factor;
    second = d * slope;
    S value = other;
    if (residual) {
      value = mask * (x - measured(other, mask));
      second *= mask;
      first += second * slope;
      second = -measured(second, mask);
    }
    if (logistic) first += d * bend * value;
  }
};

// f(first number, whether N of them are there) of the calling thread in an image of `size` numbers.
template <int N, typename F>
__device__ __forceinline__ void for_access(int64_t size, const F& f) {
  const int64_t k = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (k < size) f(k, k + N <= size);
}

// The place of number k of dense pixels of C numbers among those of 2 C.
template <int C>
__device__ __forceinline__ int64_t interleaved(int64_t k) {
  return k / C * (2 * C) + k % C;
}

// Numbers of eta that a thread takes of dense pixels.
template <typename T, int C>
inline constexpr int kDenseWidth = kVectorWidth<T> / 2 < C ? C : kVectorWidth<T> / 2;

template <typename T, int C>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 4 : resident(6))
    rim_input_kernel(const RimInputArgs<T> a) {
  using S = Accumulate<T>;
  constexpr int N = kDenseWidth<T, C>;
  for (int64_t item = blockIdx.y; item < a.items; item += gridDim.y) {
    const RimCell<T> cell(a, item);
    const S* const eta = a.eta.data + item * a.eta.item;
    const S* const other = a.other.data + item * a.other.item;
    const S* const mask = a.mask.data ? a.mask.data + item * a.mask.item : nullptr;
    T* const out = a.out + item * a.pixels * 2 * C;
    for_access<N>(a.pixels * C, [=](int64_t k, bool whole) {
      if (!whole) {
        for (; k < a.pixels * C; ++k) {
          T* const to = out + interleaved<C>(k);
          to[0] = narrow<T>(eta[k]);
          to[C] = narrow<T>(cell.gradient(eta[k], other[k], mask ? mask[k] : S(1)));
        }
        return;
      }
      const Vector<S, N> e = load_vector<N>(eta + k), g = load_vector<N>(other + k);
      Vector<S, N> m;
#pragma unroll
      for (int n = 0; n < N; ++n) m[n] = 1;
      if (mask) m = load_vector<N>(mask + k);
      Cells<T, 2 * N> both;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        both[interleaved<C>(n)] = narrow<T>(e[n]);
        both[interleaved<C>(n) + C] = narrow<T>(cell.gradient(e[n], g[n], m[n]));
      }
      both.store(out + 2 * k);
    });
  }
}

template <typename T, int C>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 4 : resident(6))
    rim_input_grad_kernel(const RimInputArgs<T> a) {
  using S = Accumulate<T>;
  constexpr int N = kDenseWidth<T, C>;
  for (int64_t item = blockIdx.y; item < a.items; item += gridDim.y) {
    const RimCell<T> cell(a, item);
    const S* const eta = a.eta.data + item * a.eta.item;
    const S* const other = a.other.data + item * a.other.item;
    const S* const mask = a.mask.data ? a.mask.data + item * a.mask.item : nullptr;
    const T* const grad = a.grad + item * a.pixels * 2 * C;
    S* const grad_eta = a.grad_eta.data + item * a.grad_eta.item;
    S* const grad_other = a.grad_other + item * a.grad_eta.item;
    for_access<N>(a.pixels * C, [=](int64_t k, bool whole) {
      if (!whole) {
        for (; k < a.pixels * C; ++k) {
          const T* const from = grad + interleaved<C>(k);
          S first = widen(from[0]), second = widen(from[C]);
          const S e = cell.logistic ? eta[k] : S(0), o = cell.logistic ? other[k] : S(0);
          cell.backward(e, o, mask ? mask[k] : S(1), first, second);
          grad_eta[k] = first;
          grad_other[k] = second;
        }
        return;
      }
      Vector<S, N> e = {}, g = {}, m, to_eta, to_other;
      if (cell.logistic) {
        e = load_vector<N>(eta + k);
        g = load_vector<N>(other + k);
      }
#pragma unroll
      for (int n = 0; n < N; ++n) m[n] = 1;
      if (mask) m = load_vector<N>(mask + k);
      Cells<T, 2 * N> both;
      both.load(grad + 2 * k);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        S first = widen(both[interleaved<C>(n)]), second = widen(both[interleaved<C>(n) + C]);
        cell.backward(e[n], g[n], m[n], first, second);
        to_eta[n] = first;
        to_other[n] = second;
      }
      store_row(grad_eta + k, to_eta);
      store_row(grad_other + k, to_other);
    });
  }
}

template <typename T, bool kGrad>
__global__ void __launch_bounds__(kThreads, 4) rim_input_strided_kernel(const RimInputArgs<T> a) {
  using S = Accumulate<T>;
  const int64_t pixel = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (pixel >= a.pixels) return;
  for (int64_t item = blockIdx.y; item < a.items; item += gridDim.y) {
    const RimCell<T> cell(a, item);
    const auto at = [=](const auto& p, int64_t c) {
      return item * p.item + c * p.channel + pixel * p.pixel;
    };
    for (int64_t c = threadIdx.x; c < a.channels; c += blockDim.x) {
      const bool asked = !kGrad || cell.logistic;
      const S eta = asked ? a.eta.data[at(a.eta, c)] : S(0);
      const S other = asked ? a.other.data[at(a.other, c)] : S(0);
      const S mask = a.mask.data ? a.mask.data[at(a.mask, c)] : S(1);
      const int64_t both = (item * a.pixels + pixel) * 2 * a.channels + c;
      if constexpr (kGrad) {
        S first = widen(a.grad[both]), second = widen(a.grad[both + a.channels]);
        cell.backward(eta, other, mask, first, second);
        a.grad_eta.data[at(a.grad_eta, c)] = first;
        a.grad_other[at(a.grad_eta, c)] = second;
      } else {
        a.out[both] = narrow<T>(eta);
        a.out[both + a.channels] = narrow<T>(cell.gradient(eta, other, mask));
      }
    }
  }
}

// Pixels of a channel that are on their way at a time, a thread.
constexpr int kPixelsAhead = 4;

// Copies `count` numbers between global and shared memory, 16 bytes at a time where allowed.
template <typename T>
__device__ __forceinline__ void copy_out(T* to, SharedPointer<T> from, int count, bool aligned) {
  constexpr int N = kVectorWidth<T>;
  const int vectors = aligned ? count / N : 0;
  for (int v = static_cast<int>(threadIdx.x); v < vectors; v += kThreads)
    store16(to + v * N, load16<T>(from + v * N));
  for (int n = vectors * N + static_cast<int>(threadIdx.x); n < count; n += kThreads) {
    const T value = from[n];
    to[n] = value;
  }
}
template <typename T>
__device__ __forceinline__ void copy_in(SharedPointer<T> to, const T* from, int count,
                                        bool aligned) {
  constexpr int N = kVectorWidth<T>;
  const int vectors = aligned ? count / N : 0;
  for (int v = static_cast<int>(threadIdx.x); v < vectors; v += kThreads)
    store16<T>(to + v * N, load16(from + v * N));
  for (int n = vectors * N + static_cast<int>(threadIdx.x); n < count; n += kThreads)
    to[n] = from[n];
}

template <typename T, bool kGrad>
__global__ void __launch_bounds__(kThreads, 4) rim_input_planes_kernel(const RimInputArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_DYNAMIC_SHARED(T, both);  // of the tile, as the network has it
  const int thread = static_cast<int>(threadIdx.x), channels = static_cast<int>(a.channels);
  const int64_t first = blockIdx.x * a.tile, left = a.pixels - first;
  const int count = static_cast<int>(left < a.tile ? left : a.tile);
  for (int64_t item = blockIdx.y; item < a.items; item += gridDim.y) {
    const RimCell<T> cell(a, item);
    const int64_t network = (item * a.pixels + first) * 2 * channels;
    if constexpr (kGrad) {
      copy_in<T>(both, a.grad + network, count * 2 * channels, a.aligned != 0);
      __syncthreads();
    }
    for (int c = 0; c < channels; ++c) {
      const S* const eta = a.eta.data + item * a.eta.item + c * a.eta.channel + first;
      const S* const other = a.other.data + item * a.other.item + c * a.other.channel + first;
      const S* const mask =
          a.mask.data ? a.mask.data + item * a.mask.item + c * a.mask.channel + first * a.mask.pixel
                      : nullptr;
      const int64_t out = item * a.grad_eta.item + c * a.grad_eta.channel + first;
      for (int start = thread; start < count; start += kPixelsAhead * kThreads) {
        S e[kPixelsAhead] = {}, o[kPixelsAhead] = {}, m[kPixelsAhead];
#pragma unroll
        for (int q = 0; q < kPixelsAhead; ++q) {
          const int p = start + q * kThreads;
          m[q] = 1;
          if (p >= count) continue;
          if (!kGrad || cell.logistic) {
            e[q] = eta[p];
            o[q] = other[p];
          }
          if (mask) m[q] = mask[p * a.mask.pixel];
        }
#pragma unroll
        for (int q = 0; q < kPixelsAhead; ++q) {
          const int p = start + q * kThreads, at = p * 2 * channels + c;
          if (p >= count) continue;
          if constexpr (kGrad) {
            const T of_eta = both[at], of_gradient = both[at + channels];
            S to_eta = widen(of_eta), to_other = widen(of_gradient);
            cell.backward(e[q], o[q], m[q], to_eta, to_other);
            a.grad_eta.data[out + p] = to_eta;
            a.grad_other[out + p] = to_other;
          } else {
            both[at] = narrow<T>(e[q]);
            both[at + channels] = narrow<T>(cell.gradient(e[q], o[q], m[q]));
          }
        }
      }
    }
    __syncthreads();
    if constexpr (!kGrad) {
      copy_out<T>(a.out + network, both, count * 2 * channels, a.aligned != 0);
      __syncthreads();
    }
  }
}

}  // namespace amstel::cuda
