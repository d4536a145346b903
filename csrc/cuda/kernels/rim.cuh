// Separable bicubic resampling and its adjoint, also as the input of a recurrent inference
// machine's network; torch-free.  Other such inputs are in rim_input.cuh.
//
// Data flow down.  A block makes a tile of the small image: a thread goes down a strip of a column
// of the large image, adds each pixel to the four results that it belongs to (weights of 4 s pixels
// overlap by 4), and leaves kStripRows column sums in shared memory, there in s phases, so that the
// sums along a row are of neighbors and free of bank conflicts.  The image is read once, but for 3
// of kStripRows + 3 parts of a column from a cache, and 1 / s^2 is written (with `minus`, read).
//
// Data flow up, the adjoint, by outputs: a pixel of the large image gets from at most 4 x 4
// neighboring pixels of the small one, mirrored ones counted in, with weights of row and column
// that a block has added up for its tile.  It spreads the rows of the small image along themselves
// into shared memory, then adds up 4 of those for each result: the small image is read from a
// cache, the large one written once, or goes with eta to the network's input.  Nothing is ever
// added to memory, so the bits do not depend on the order of the threads.
#pragma once

#include "common/numbers.h"
#include "cuda/kernels/conv_lstm.cuh"  // sigmoid

namespace amstel::cuda {

constexpr int kLargestScale = 64;
constexpr int kStripRows = 8;              // down: results of a strip
constexpr int kUpRows = 32, kUpCols = 32;  // up: the tile of a block
constexpr int kSpreadRows = kUpRows + 4;   // and the rows of the small image that reach it

template <typename S>
struct BicubicArgs {
  const S *in, *minus;  // minus may be null
  S* out;
  int64_t items, channels;       // of both, one image each; down has no channels
  int64_t height, width, scale;  // of the small image
  int64_t first;                 // the first pixel of result 0
  double sum;                    // of all weights before they are divided by it
  // Down: columns of a tile, strips in one below the other, and numbers from phase to phase.
  int64_t cols, strips, pitch;
};

// Keys' cubic of a = -0.5, stretched by the scale, at pixel first + k of result 0; not divided by
// the sum of all.
__host__ __device__ inline double cubic_weight(int64_t first, int64_t scale, int64_t k) {
  const double center = 0.5 * static_cast<double>(scale) - 0.5;
  const double d = fabs(static_cast<double>(first + k) - center) / static_cast<double>(scale);
  return d <= 1 ? (1.5 * d - 2.5) * d * d + 1 : d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
}

template <typename S>
__device__ __forceinline__ S bicubic_weight(const BicubicArgs<S>& a, int64_t k) {
  return static_cast<S>(cubic_weight(a.first, a.scale, k) / a.sum);
}

template <typename S>
__global__ void __launch_bounds__(kThreads, 4) bicubic_down_kernel(const BicubicArgs<S> a) {
  AMSTEL_DYNAMIC_SHARED(S, weights);  // phase by phase, 4 each; behind them the column sums
  const int thread = static_cast<int>(threadIdx.x), s = static_cast<int>(a.scale);
  const int cols = static_cast<int>(a.cols), pitch = static_cast<int>(a.pitch);
  const int large_cols = (cols + 3) * s, strips = static_cast<int>(a.strips);
  const SharedPointer<S> sums = weights + 4 * s;
  const int64_t large_height = a.height * s, large_width = a.width * s;
  const int64_t left = int64_t{blockIdx.x} * cols;
  if (thread < 4 * s) weights[thread] = bicubic_weight(a, thread % 4 * s + thread / 4);
  __syncthreads();
  for (int64_t plane = blockIdx.z; plane < a.items; plane += gridDim.z) {
    const S* const in = a.in + plane * large_height * large_width;
    for (int64_t top = int64_t{blockIdx.y} * strips * kStripRows; top < a.height;
         top += int64_t{gridDim.y} * strips * kStripRows) {
      for (int i = thread; i < large_cols * strips; i += kThreads) {
        const int strip = i / large_cols, col = i - strip * large_cols;
        const int64_t first_row = top + strip * kStripRows, left_over = a.height - first_row;
        const int rows = left_over < kStripRows ? static_cast<int>(left_over) : kStripRows;
        if (rows <= 0) continue;
        const S* const column = in + mirrored(left * s + a.first + col, large_width);
        const SharedPointer<S> to = sums + (strip * kStripRows * s + col % s) * pitch + col / s;
        S sum[4] = {};  // of results b - 3 to b
        int64_t row = first_row * s + a.first;
#pragma unroll 1
        for (int b = 0; b < rows + 3; ++b) {
#pragma unroll 2
          for (int p = 0; p < s; ++p, ++row) {
            const S x = column[mirrored(row, large_height) * large_width];
#pragma unroll
            for (int q = 0; q < 4; ++q) {
              const S weight = weights[p * 4 + 3 - q];
              sum[q] += weight * x;
            }
          }
          if (b >= 3) to[(b - 3) * s * pitch] = sum[0];
#pragma unroll
          for (int q = 0; q < 3; ++q) sum[q] = sum[q + 1];
          sum[3] = 0;
        }
      }
      __syncthreads();
      for (int i = thread; i < strips * kStripRows * cols; i += kThreads) {
        const int row = i / cols, col = i - row * cols;
        if (top + row >= a.height || left + col >= a.width) continue;
        const SharedPointer<S> from = sums + row * s * pitch + col;
        S sum = 0;
        for (int p = 0; p < s; ++p) {
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            const S weight = weights[p * 4 + q], x = from[p * pitch + q];
            sum += weight * x;
          }
        }
        const int64_t at = (plane * a.height + top + row) * a.width + left + col;
        a.out[at] = a.minus ? sum - a.minus[at] : sum;
      }
      __syncthreads();
    }
  }
}

// Along an axis of n pixels of the small image: the first of the 4 from which pixel m of the large
// one gets.  At both ends it stays inside, where the mirrored ones come from too.
__device__ __forceinline__ int64_t up_start(int64_t m, int64_t first, int64_t s, int64_t n) {
  const int64_t start = (m - first) / s - 3, last = n - 4;
  return start > last ? (last > 0 ? last : 0) : start > 0 ? start : 0;
}

// And their weights, `weights` being those of 4 s pixels: of m and of what is its mirror image,
// which reaches no further than once around.
template <typename S>
__device__ __forceinline__ void up_weights(SharedPointer<S> weights, int64_t m, int64_t first,
                                           int64_t s, int64_t n, S (&sum)[4]) {
  const int64_t start = up_start(m, first, s, n), size = n * s;
  const int64_t images[5] = {m - 2 * size, -1 - m, m, 2 * size - 1 - m, m + 2 * size};
#pragma unroll
  for (int q = 0; q < 4; ++q) sum[q] = 0;
#pragma unroll
  for (int i = 0; i < 5; ++i) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int64_t k = images[i] - first - (start + q) * s;
      if (start + q < n && k >= 0 && k < 4 * s) {
        const S weight = weights[k];
        sum[q] += weight;
      }
    }
  }
}

// The result, or with it the input of a network of type T.
template <typename T>
struct BicubicInputArgs {
  using S = Accumulate<T>;
  BicubicArgs<S> up;  // its `out` is for the result alone, all that follows for the input
  const S *eta, *precision;
  double factor;
  int64_t logistic;
  T* out;
};

template <typename T, bool kInput>
__global__ void __launch_bounds__(kThreads, 4) bicubic_up_kernel(const BicubicInputArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_SHARED(S, weights, 4 * kLargestScale);
  AMSTEL_SHARED(S, row_weights, 4 * kUpRows);
  AMSTEL_SHARED(int, row_starts, kUpRows);
  AMSTEL_SHARED(S, spread, kSpreadRows * kUpCols);
  const BicubicArgs<S> u = a.up;
  const int thread = static_cast<int>(threadIdx.x), x = thread % kUpCols, y = thread / kUpCols;
  constexpr int kStep = kThreads / kUpCols;
  const int64_t s = u.scale, large_height = u.height * s, large_width = u.width * s;
  const int64_t col = int64_t{blockIdx.x} * kUpCols + x;
  const bool inside = col < large_width;
  if (thread < 4 * s) weights[thread] = bicubic_weight(u, thread);
  __syncthreads();
  const int64_t col_start = inside ? up_start(col, u.first, s, u.width) : 0;
  S col_weights[4] = {};
  if (inside) up_weights<S>(weights, col, u.first, s, u.width, col_weights);

  for (int64_t top = int64_t{blockIdx.y} * kUpRows; top < large_height;
       top += int64_t{gridDim.y} * kUpRows) {
    const int64_t left_over = large_height - top;
    const int rows = left_over < kUpRows ? static_cast<int>(left_over) : kUpRows;
    const int64_t start = up_start(top, u.first, s, u.height);
    const int lines = static_cast<int>(up_start(top + rows - 1, u.first, s, u.height) - start) + 4;
    if (thread < rows) {
      row_starts[thread] = static_cast<int>(up_start(top + thread, u.first, s, u.height) - start);
      S sum[4];
      up_weights<S>(weights, top + thread, u.first, s, u.height, sum);
#pragma unroll
      for (int q = 0; q < 4; ++q) row_weights[thread * 4 + q] = sum[q];
    }
    for (int64_t item = blockIdx.z; item < u.items; item += gridDim.z) {
      for (int64_t c = 0; c < u.channels; ++c) {
        const int64_t plane = item * u.channels + c;
        const S* const in = u.in + (plane * u.height + start) * u.width + col_start;
        for (int line = y; line < lines; line += kStep) {
          S sum = 0;
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            if (inside && start + line < u.height && col_start + q < u.width)
              sum += col_weights[q] * in[line * u.width + q];
          }
          spread[line * kUpCols + x] = sum;
        }
        __syncthreads();
        for (int row = y; row < rows; row += kStep) {
          if (!inside) break;
          const int from = row_starts[row];
          S sum = 0;
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            const S weight = row_weights[row * 4 + q], value = spread[(from + q) * kUpCols + x];
            sum += weight * value;
          }
          const int64_t at = (plane * large_height + top + row) * large_width + col;
          if constexpr (kInput) {
            const S eta = a.eta[at];
            S slope = static_cast<S>(a.factor) * (a.precision ? a.precision[item] : S(1));
            if (a.logistic) {
              const S p = sigmoid<T>(eta);
              slope *= p * (1 - p);
            }
            T* const out =
                a.out + ((item * large_height + top + row) * large_width + col) * 2 * u.channels;
            if (u.channels == 1) {
              Vector<T, 2> both;
              both[0] = narrow<T>(eta);
              both[1] = narrow<T>(sum * slope);
              store_row(out, both);
            } else {
              out[c] = narrow<T>(eta);
              out[u.channels + c] = narrow<T>(sum * slope);
            }
          } else {
            u.out[at] = sum;
          }
        }
        __syncthreads();
      }
    }
  }
}

}  // namespace amstel::cuda
