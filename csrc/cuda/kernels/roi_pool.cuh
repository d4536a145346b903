// ROI max pooling and the match of pooled maps with a query; torch-free.  The gradient of the input
// is in roi_pool_grad.cuh.
//
// Data flow.  roi_table_kernel computes where the bins of every box lie, 4 (1 + 2 ph + 2 pw) bytes
// a box; no other kernel knows any geometry.  A box that is not valid has image -1 and no cells: it
// is pooled to 0 and has no gradient.
//
// roi_pool_kernel takes an output a thread, or the 16 bytes of N channels where they are
// neighbors, and reads the cells of its bin; boxes overlap, so that most of this is in a cache. An
// output costs the t bytes of each of its cells read and t written (t + 4 with argmax).  A block
// has one box.  Neighboring threads, `lanes` of them, go along what is closest in memory, channels
// (channels last) or bins, so that all that is written, and with channels last all that is read, is
// in contiguous runs; further threads go along the other one.  Boxes are grid.x, so that the blocks
// which run at a time share channels of the map.
//
// roi_match_kernel reads the same, keeps <p, p> and <p, query> in registers, and writes two numbers
// a box and part of the channels; sum_rows_kernel adds the parts up.
//
// Offsets are 64-bit throughout; bins and cells of a map are counted in 32.
#pragma once

#include "common/roi.h"
#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

// ---- Where the bins are ----

template <typename R>
struct RoiTableArgs {
  const R* rois;
  int64_t row, col;  // strides
  double scale;
  int64_t images, height, width, pooled_height, pooled_width, count;
  int32_t* table;
  unsigned long long* first_bad;  // the smallest number of a box that is not valid; may be null
};

constexpr int kTableThreads = 64;  // a box is a long way for a thread: many small blocks

template <typename R, roi::Arithmetic kArithmetic>
__global__ void __launch_bounds__(kTableThreads) roi_table_kernel(const RoiTableArgs<R> a) {
  using C = typename roi::Number<kArithmetic>::type;
  const int64_t k = int64_t{blockIdx.x} * kTableThreads + threadIdx.x;
  if (k >= a.count) return;
  C box[5];
#pragma unroll
  for (int i = 0; i < 5; ++i) box[i] = widen(a.rois[k * a.row + i * a.col]);
  int32_t* const row = a.table + k * roi::table_width(a.pooled_height, a.pooled_width);
  roi::table_row<kArithmetic>(box, roi::rounded<kArithmetic>(static_cast<C>(a.scale)), a.images,
                              a.height, a.width, a.pooled_height, a.pooled_width, row);
  if (row[0] < 0 && a.first_bad) atomicMin(a.first_bad, static_cast<unsigned long long>(k));
}

struct Bin {
  int row, row_end, col, col_end;
  __device__ __forceinline__ bool empty() const { return row >= row_end || col >= col_end; }
};

struct BinTable {
  const int32_t* table;
  int64_t pooled_height, pooled_width;

  __device__ __forceinline__ const int32_t* of(int64_t k) const {
    return table + k * roi::table_width(pooled_height, pooled_width);
  }
  __device__ __forceinline__ Bin bin(int64_t k, int64_t b) const {
    const int ph = static_cast<int>(pooled_height), pw = static_cast<int>(pooled_width);
    const int i = static_cast<int>(static_cast<unsigned>(b) / static_cast<unsigned>(pw));
    const int j = static_cast<int>(b) - i * pw;
    const int32_t* const row = of(k) + 1;
    const int32_t* const col = row + 2 * ph;
    return {row[i], row[ph + i], col[j], col[pw + j]};
  }
};

// ---- Threads over the channels and bins of a box ----

using RoiStrides = roi::Strides;

// Of [K, C, ph, pw], and of a query [C, ph, pw].
struct PooledStrides {
  int64_t item, channel, bin;
};

// Channels come in accesses of N.
struct Share {
  int64_t accesses, bins;
  int64_t lanes;  // threads along channels (`last`) or bins, the rest along the other
  int64_t last;   // channels are neighbors in memory

  __device__ __forceinline__ int64_t across() const { return last ? accesses : bins; }
  __device__ __forceinline__ int64_t along() const { return last ? bins : accesses; }
};

// f(access, bin) of the calling thread in a grid (boxes, along, across).
template <typename F>
__device__ __forceinline__ void for_share(const Share s, const F& f) {
  const int lanes = static_cast<int>(s.lanes), rows = kThreads / lanes;
  const int y = static_cast<int>(threadIdx.x) / lanes,
            x = static_cast<int>(threadIdx.x) - y * lanes;
  if (y >= rows) return;
  for (int64_t u = int64_t{blockIdx.z} * lanes + x; u < s.across();
       u += int64_t{gridDim.z} * lanes) {
#pragma unroll 1
    for (int64_t v = int64_t{blockIdx.y} * rows + y; v < s.along(); v += int64_t{gridDim.y} * rows)
      f(s.last ? u : v, s.last ? v : u);
  }
}

// ---- Maxima ----

// The first of the largest cells of a bin and its number h * width + w, or -1; NaN is never larger.
// An empty bin has the value 0.
template <typename T, int N, bool kCell>
struct Maximum {
  using S = Accumulate<T>;
  S value[N];
  int cell[N];

  // x: cell 0 of these channels.
  __device__ __forceinline__ Maximum(const T* x, int64_t row_stride, int64_t col_stride,
                                     int64_t width, const Bin& bin) {
    constexpr float kLowest = -3.402823466e+38f;  // for every dtype, as in torchvision
#pragma unroll
    for (int n = 0; n < N; ++n) {
      value[n] = bin.empty() ? S(0) : S(kLowest);
      cell[n] = -1;
    }
    for (int h = bin.row; h < bin.row_end; ++h) {
      const T* p = x + h * row_stride + bin.col * col_stride;
      int number = static_cast<int>(h * width) + bin.col;
#pragma unroll 4
      for (int w = bin.col; w < bin.col_end; ++w, p += col_stride, ++number) {
        const Vector<T, N> read = load_vector<N>(p);
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const S v = widen(read[n]);
          const bool larger = v > value[n];
          value[n] = larger ? v : value[n];
          if constexpr (kCell) cell[n] = larger ? number : cell[n];
        }
      }
    }
  }
};

template <typename T>
struct RoiPoolArgs {
  const T* input;
  RoiStrides in;
  int64_t width;
  BinTable table;
  T* pooled;
  int32_t* argmax;  // null without
  PooledStrides out;
  Share share;
};

template <typename T, int N, bool kArgmax>
__global__ void __launch_bounds__(kThreads, 4) roi_pool_kernel(const RoiPoolArgs<T> a) {
  const int64_t k = blockIdx.x;
  const BinTable table = a.table;
  const int64_t image = table.of(k)[0];
  for_share(a.share, [=](int64_t access, int64_t b) {
    const int64_t channel = access * N;
    const Maximum<T, N, kArgmax> m(a.input + image * a.in.item + channel * a.in.channel, a.in.row,
                                   a.in.col, a.width, table.bin(k, b));
    Cells<T, N> value;
    Cells<int32_t, N> cell;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      value[n] = narrow<T>(m.value[n]);
      cell[n] = m.cell[n];
    }
    const int64_t at = k * a.out.item + channel * a.out.channel + b * a.out.bin;
    value.store(a.pooled + at);
    if constexpr (kArgmax) cell.store(a.argmax + at);
  });
}

// pooled = input where argmax points, 0 where it is -1 or not a cell.
template <typename T>
struct RoiGatherArgs {
  const T* input;
  int64_t item, channel, cell, cells;  // strides of the input, and its cells
  BinTable table;                      // of which only the images are read
  int64_t pooled_width;
  const int32_t* argmax;
  RoiStrides from;
  T* pooled;
  PooledStrides out;
  Share share;
};

template <typename T>
__global__ void __launch_bounds__(kThreads, resident(6))
    roi_pool_gather_kernel(const RoiGatherArgs<T> a) {
  const int64_t k = blockIdx.x;
  const BinTable table = a.table;
  const int64_t image = table.of(k)[0];
  for_share(a.share, [=](int64_t channel, int64_t b) {
    const int64_t i = static_cast<unsigned>(b) / static_cast<unsigned>(a.pooled_width);
    const int64_t j = b - i * a.pooled_width;
    const int64_t cell =
        a.argmax[k * a.from.item + channel * a.from.channel + i * a.from.row + j * a.from.col];
    T value = narrow<T>(0);
    if (image >= 0 && cell >= 0 && cell < a.cells)
      value = a.input[image * a.item + channel * a.channel + cell * a.cell];
    a.pooled[k * a.out.item + channel * a.out.channel + b * a.out.bin] = value;
  });
}

// ---- Match ----

template <typename T>
struct RoiMatchArgs {
  const T* input;
  RoiStrides in;
  BinTable table;
  const T* query;
  PooledStrides of_query;
  Accumulate<T>* sums;  // [parts, boxes, 2]
  int64_t boxes, parts;
  Share share;
};

// A part is kMatchTurns turns of the threads along the channels: one where they are lanes.
constexpr int kMatchTurns = 8;

__host__ __device__ inline int64_t match_part(const Share s) {
  return s.last ? s.lanes : kThreads / s.lanes * kMatchTurns;
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 4) roi_match_kernel(const RoiMatchArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_SHARED(S, partial, 2 * kThreads);
  const int64_t k = blockIdx.x;
  const BinTable table = a.table;
  const int64_t image = table.of(k)[0];
  const int lanes = static_cast<int>(a.share.lanes), rows = kThreads / lanes;
  const int y = static_cast<int>(threadIdx.x) / lanes,
            x = static_cast<int>(threadIdx.x) - y * lanes;
  const int64_t width = match_part(a.share);
  for (int64_t part = blockIdx.y; part < a.parts; part += gridDim.y) {
    const int64_t last =
        (part + 1) * width < a.share.accesses ? (part + 1) * width : a.share.accesses;
    S sum[2] = {};
    const auto add = [=, &sum](int64_t access, int64_t b) {
      const Bin bin = table.bin(k, b);
      if (bin.empty()) return;
      const int64_t channel = access * N;
      const Maximum<T, N, false> m(a.input + image * a.in.item + channel * a.in.channel, a.in.row,
                                   a.in.col, 0, bin);
      const Vector<T, N> q =
          load_vector<N>(a.query + channel * a.of_query.channel + b * a.of_query.bin);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        sum[0] += m.value[n] * m.value[n];
        sum[1] += m.value[n] * widen(q[n]);
      }
    };
    // One loop for both layouts, so that the maximum is compiled once.
    const int64_t channel_step = a.share.last ? width : rows,
                  bin_step = a.share.last ? rows : lanes;
    const int64_t first = part * width + (a.share.last ? x : y);
    if (y < rows) {
      for (int64_t c = first; c < last; c += channel_step) {
#pragma unroll 1
        for (int64_t b = a.share.last ? y : x; b < a.share.bins; b += bin_step) add(c, b);
      }
    }
    sum_tiles<2, S>(partial, threadIdx.x, 1, sum);
    if (threadIdx.x == 0) {
      a.sums[(part * a.boxes + k) * 2] = sum[0];
      a.sums[(part * a.boxes + k) * 2 + 1] = sum[1];
    }
  }
}

// out = sum over k of weight[k] * rows[k], in order, for rows [along, across]; neighbors go along
// `across`. Reads each row once.
template <typename T>
struct SumRowsArgs {
  const T* rows;
  int64_t count;
  const Accumulate<T>* weight;  // null: 1
  int64_t weight_stride;
  T* out;
  int64_t along, across, out_along, out_across;  // sizes, and strides of the result
};

template <typename T>
__global__ void __launch_bounds__(kThreads, resident(6)) sum_rows_kernel(const SumRowsArgs<T> a) {
  using S = Accumulate<T>;
  const int64_t u = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (u >= a.across) return;
  for (int64_t v = blockIdx.y; v < a.along; v += gridDim.y) {
    const T* p = a.rows + v * a.across + u;
    S sum = 0;
#pragma unroll 4
    for (int64_t k = 0; k < a.count; ++k, p += a.along * a.across) {
      const S x = widen(*p);
      sum += a.weight ? a.weight[k * a.weight_stride] * x : x;
    }
    a.out[u * a.out_across + v * a.out_along] = narrow<T>(sum);
  }
}

}  // namespace amstel::cuda
