// ROI align and position-sensitive ROI pooling, forward and backward; torch-free.
//
// Data flow.  align_boxes_kernel computes where every box begins and how large its bins are, 32 or
// 48 bytes a box, ps_table_kernel where the bins of every box lie, as roi_table_kernel does; a box
// that is not valid has image -1 and no samples or cells: it is pooled to 0 and has no gradient.
//
// roi_align_kernel takes an output a thread, or the 16 bytes of N channels where they are
// neighbors: 4 loads a sample, most of them from a cache, since samples of a bin share cells and
// boxes overlap.  ps_roi_pool_kernel takes an output a thread and reads the cells of its bin in the
// one channel that belongs to it.  Threads go along boxes, bins and channels as in roi_pool.cuh.
//
// The gradients own cells, as in roi_pool_grad.cuh: align_list_kernel lists the boxes of every tile
// with the bins whose samples may reach it, and every warp of a block walks a run of these bins, a
// lane a channel, adding each of its samples to those of its four cells that the tile has.  Where
// samples lie is the same for all lanes.  In ps_roi_pool_grad_kernel a lane is an input channel, to
// which one bin of every box belongs.  No atomics, and the same bits in every run.
#pragma once

#include "common/roi_align.h"
#include "cuda/kernels/roi_pool_grad.cuh"

namespace amstel::cuda {

// ---- Where samples and bins are ----

template <typename C>
struct alignas(16) AlignBox {
  C row, row_bin, col, col_bin;  // begin and size of a bin
  int32_t row_grid, col_grid;    // samples of a bin
  int32_t image, unused;
};

template <typename C>
struct AlignBoxes {
  const AlignBox<C>* boxes;
  int64_t pooled_height, pooled_width;
  int64_t height, width;  // of the map; -2 where it has no cells, and no sample is inside

  __device__ __forceinline__ roi::Axis<C> rows(const AlignBox<C>& b) const {
    return {b.row, b.row_bin, pooled_height, b.row_grid};
  }
  __device__ __forceinline__ roi::Axis<C> cols(const AlignBox<C>& b) const {
    return {b.col, b.col_bin, pooled_width, b.col_grid};
  }
};

template <typename R>
struct RegionArgs {
  const R* rois;
  int64_t row, col;  // strides
  double scale;
  int64_t images, height, width, pooled_height, pooled_width, count;
  unsigned long long* first_bad;  // the smallest number of a box that is not valid; may be null
};

// The box in the arithmetic C; whether it is valid.
template <typename R, typename C>
__device__ __forceinline__ bool read_box(const RegionArgs<R>& a, int64_t k, C (&box)[5]) {
#pragma unroll
  for (int i = 0; i < 5; ++i) box[i] = static_cast<C>(widen(a.rois[k * a.row + i * a.col]));
  bool valid = box[0] >= 0 && box[0] < static_cast<C>(a.images) &&
               static_cast<C>(static_cast<int64_t>(box[0])) == box[0];
#pragma unroll
  for (int i = 1; i < 5; ++i) valid = valid && box[i] - box[i] == 0;
  if (!valid && a.first_bad) atomicMin(a.first_bad, static_cast<unsigned long long>(k));
  return valid;
}

template <typename R, typename C>
__global__ void __launch_bounds__(kTableThreads)
    align_boxes_kernel(const RegionArgs<R> a, AlignBox<C>* boxes, int64_t sampling,
                       int64_t aligned) {
  const int64_t k = int64_t{blockIdx.x} * kTableThreads + threadIdx.x;
  if (k >= a.count) return;
  C box[5];
  AlignBox<C> found{};
  found.image = -1;
  if (read_box(a, k, box)) {
    const C scale = static_cast<C>(a.scale);
    const roi::Axis<C> rows =
        roi::axis_of(box[2], box[4], scale, a.pooled_height, sampling, aligned != 0);
    const roi::Axis<C> cols =
        roi::axis_of(box[1], box[3], scale, a.pooled_width, sampling, aligned != 0);
    found = {rows.start,
             rows.bin,
             cols.start,
             cols.bin,
             static_cast<int32_t>(rows.grid),
             static_cast<int32_t>(cols.grid),
             static_cast<int32_t>(box[0]),
             0};
  }
  boxes[k] = found;
}

template <typename R, typename C>
__global__ void __launch_bounds__(kTableThreads)
    ps_table_kernel(const RegionArgs<R> a, int32_t* table) {
  const int64_t k = int64_t{blockIdx.x} * kTableThreads + threadIdx.x;
  if (k >= a.count) return;
  C box[5];
  const int64_t ph = a.pooled_height, pw = a.pooled_width, width = roi::table_width(ph, pw);
  int32_t* const row = table + k * width;
  if (!read_box(a, k, box)) {
    for (int64_t i = 0; i < width; ++i) row[i] = i == 0 ? -1 : 0;
    return;
  }
  const C scale = static_cast<C>(a.scale);
  row[0] = static_cast<int32_t>(box[0]);
  roi::ps_bins(box[2], box[4], scale, ph, a.height, row + 1);
  roi::ps_bins(box[1], box[3], scale, pw, a.width, row + 1 + 2 * ph);
}

// ---- Align, forward ----

template <typename T, typename C>
struct AlignArgs {
  const T* input;
  RoiStrides in;
  AlignBoxes<C> boxes;
  T* pooled;
  PooledStrides out;
  Share share;
};

template <typename T, typename C, int N>
__global__ void __launch_bounds__(kThreads, 3) roi_align_kernel(const AlignArgs<T, C> a) {
  using S = Accumulate<T>;
  const int64_t k = blockIdx.x;
  const AlignBoxes<C> boxes = a.boxes;
  const AlignBox<C> box = boxes.boxes[k];
  const roi::Axis<C> rows = boxes.rows(box), cols = boxes.cols(box);
  for_share(a.share, [=](int64_t access, int64_t b) {
    const int i =
        static_cast<int>(static_cast<unsigned>(b) / static_cast<unsigned>(boxes.pooled_width));
    const int j = static_cast<int>(b) - i * static_cast<int>(boxes.pooled_width);
    const T* const x = a.input + box.image * a.in.item + access * N * a.in.channel;
    S sum[N] = {};
    int64_t y, y_end, x_begin, x_end;
    roi::near_samples(rows, i, boxes.height, &y, &y_end);
    roi::near_samples(cols, j, boxes.width, &x_begin, &x_end);
    if (box.image < 0) y_end = y;
#pragma unroll 1
    for (; y < y_end; ++y) {
      int32_t top, bottom;
      C of_bottom;
      if (!roi::sample_of(rows, i, y, boxes.height, &top, &bottom, &of_bottom)) continue;
#pragma unroll 1
      for (int64_t s = x_begin; s < x_end; ++s) {
        int32_t left, right;
        C of_right;
        if (!roi::sample_of(cols, j, s, boxes.width, &left, &right, &of_right)) continue;
        const C of_top = C(1) - of_bottom, of_left = C(1) - of_right;
        const S weights[4] = {static_cast<S>(of_top * of_left), static_cast<S>(of_top * of_right),
                              static_cast<S>(of_bottom * of_left),
                              static_cast<S>(of_bottom * of_right)};
        Vector<T, N> cells[4];
        cells[0] = load_vector<N>(x + top * a.in.row + left * a.in.col);
        cells[1] = load_vector<N>(x + top * a.in.row + right * a.in.col);
        cells[2] = load_vector<N>(x + bottom * a.in.row + left * a.in.col);
        cells[3] = load_vector<N>(x + bottom * a.in.row + right * a.in.col);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
#pragma unroll
          for (int n = 0; n < N; ++n) sum[n] += weights[q] * widen(cells[q][n]);
        }
      }
    }
    const S samples = static_cast<S>(box.row_grid) * static_cast<S>(box.col_grid);
    Cells<T, N> value;
#pragma unroll
    for (int n = 0; n < N; ++n) value[n] = narrow<T>(samples > 1 ? sum[n] / samples : sum[n]);
    value.store(a.pooled + k * a.out.item + access * N * a.out.channel + b * a.out.bin);
  });
}

// ---- Align, backward ----

template <typename C>
struct AlignListArgs {
  AlignBoxes<C> boxes;
  RoiLists lists;
};

// The bins along an axis that may have a sample whose cells are among [from, to): samples lie from
// the begin of a bin to its end, which rounds upward no further than they do; a cell to either side
// for those that are moved to the border.
template <typename C>
__device__ __forceinline__ bool bins_reaching(const roi::Axis<C>& axis, int64_t from, int64_t to,
                                              uint32_t& range) {
  const C low = static_cast<C>(from) - C(2), high = static_cast<C>(to) + C(1);
  uint32_t first = 0, last = 0;
#pragma unroll 1
  for (int64_t b = 0; b < axis.bins; ++b) {
    const C begin = axis.start + roi::product(static_cast<C>(b), axis.bin), end = begin + axis.bin;
    const C least = begin < end ? begin : end, most = begin < end ? end : begin;
    if (!(most >= low && least <= high)) continue;
    if (last == 0) first = static_cast<uint32_t>(b);
    last = static_cast<uint32_t>(b) + 1;
  }
  range = first | last << 16;
  return last > 0 && axis.grid > 0;
}

template <typename C>
__global__ void __launch_bounds__(kThreads, 4) align_list_kernel(const AlignListArgs<C> a) {
  const AlignBoxes<C> boxes = a.boxes;
  const int32_t tile_rows = a.lists.tiles.rows, tile_cols = a.lists.tiles.cols;
  list_boxes(a.lists, [=](int64_t k, const Tile& tile, uint32_t& rows, uint32_t& cols) {
    const AlignBox<C> box = boxes.boxes[k];
    return box.image == tile.image &&
           bins_reaching(boxes.rows(box), tile.top, tile.top + tile_rows, rows) &&
           bins_reaching(boxes.cols(box), tile.left, tile.left + tile_cols, cols);
  });
}

template <typename T, typename C>
struct AlignGradArgs {
  const T* grad;
  RoiStrides grad_strides;
  AlignBoxes<C> boxes;
  RoiLists lists;
  T* grad_input;
  RoiStrides out;
  int64_t channels;
  int64_t last;  // channels are neighbors in memory
};

template <typename T, typename C>
__global__ void __launch_bounds__(kThreads, 2) roi_align_grad_kernel(const AlignGradArgs<T, C> a) {
  using S = Accumulate<T>;
  AMSTEL_DYNAMIC_SHARED(S, sums);  // [warps, cells, kSumPitch]
  AMSTEL_SHARED(int, box_of, kItems);
  AMSTEL_SHARED(int, bin_of, kItems);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const Tiles tiles = a.lists.tiles;
  const Tile tile(tiles, tiles.first + blockIdx.x);
  const AlignBoxes<C> boxes = a.boxes;
  const int cells = tiles.rows * tiles.cols, tile_rows = tiles.rows, tile_cols = tiles.cols;
  const int top = static_cast<int>(tile.top), left = static_cast<int>(tile.left);
  const uint32_t* const list = a.lists.entries + blockIdx.x * a.lists.boxes * 4;
  const int count = a.lists.counts[blockIdx.x];
  const SharedPointer<S> own_sums = sums + (warp * cells * kSumPitch + lane);

  for (int64_t slice = int64_t{blockIdx.y} * 32; slice < a.channels;
       slice += int64_t{gridDim.y} * 32) {
    const int64_t channel = slice + lane;
    const bool works = channel < a.channels;
    const T* const grad = a.grad + channel * a.grad_strides.channel;
    for (int c = 0; c < cells; ++c) own_sums[c * kSumPitch] = S(0);
    const auto put = [=](int slot, int64_t k, int i, int j) {
      box_of[slot] = static_cast<int>(k);
      bin_of[slot] = i << 16 | j;
    };
    const auto add = [=](int row, int col, S value) {
      const int r = row - top, c = col - left;
      if (r < 0 || r >= tile_rows || c < 0 || c >= tile_cols) return;
      const int place = (r * tile_cols + c) * kSumPitch;
      const S sum = own_sums[place];
      own_sums[place] = sum + value;
    };
    const auto walk = [=](int first, int last) {
#pragma unroll 1
      for (int slot = first; slot < last && works; ++slot) {
        const int64_t k = box_of[slot];
        const int bin = bin_of[slot], i = bin >> 16, j = bin & 0xffff;
        S value =
            widen(grad[k * a.grad_strides.item + i * a.grad_strides.row + j * a.grad_strides.col]);
        const AlignBox<C> box = boxes.boxes[k];
        const roi::Axis<C> rows = boxes.rows(box), cols = boxes.cols(box);
        const S samples = static_cast<S>(box.row_grid) * static_cast<S>(box.col_grid);
        if (samples > 1) value /= samples;
        int64_t y, y_end, x_begin, x_end;
        roi::near_samples(rows, i, boxes.height, &y, &y_end);
        roi::near_samples(cols, j, boxes.width, &x_begin, &x_end);
#pragma unroll 1
        for (; y < y_end; ++y) {
          int32_t upper, lower;
          C of_lower;
          if (!roi::sample_of(rows, i, y, boxes.height, &upper, &lower, &of_lower)) continue;
          if (lower < top || upper >= top + tile_rows) continue;
#pragma unroll 1
          for (int64_t s = x_begin; s < x_end; ++s) {
            int32_t near, far;
            C of_far;
            if (!roi::sample_of(cols, j, s, boxes.width, &near, &far, &of_far)) continue;
            const C of_upper = C(1) - of_lower, of_near = C(1) - of_far;
            add(upper, near, value * static_cast<S>(of_upper * of_near));
            add(upper, far, value * static_cast<S>(of_upper * of_far));
            add(lower, near, value * static_cast<S>(of_lower * of_near));
            add(lower, far, value * static_cast<S>(of_lower * of_far));
          }
        }
      }
    };
    for_listed_bins(list, count, put, walk);
    write_tile<T>(sums, tiles, tile, slice, a.channels, a.last != 0, a.grad_input, a.out);
  }
}

// ---- Position-sensitive pooling ----

template <typename T>
struct PsArgs {
  const T* input;
  RoiStrides in;
  BinTable table;
  T* pooled;
  PooledStrides out;
  Share share;  // of output channels and bins
};

template <typename T>
__global__ void __launch_bounds__(kThreads, 4) ps_roi_pool_kernel(const PsArgs<T> a) {
  using S = Accumulate<T>;
  const int64_t k = blockIdx.x;
  const BinTable table = a.table;
  const int64_t image = table.of(k)[0];
  for_share(a.share, [=](int64_t channel, int64_t b) {
    const Bin bin = table.bin(k, b);
    S sum = 0;
    if (image >= 0 && !bin.empty()) {
      const T* const x = a.input + image * a.in.item + (channel * a.share.bins + b) * a.in.channel;
      for (int h = bin.row; h < bin.row_end; ++h) {
#pragma unroll 4
        for (int w = bin.col; w < bin.col_end; ++w) sum += widen(x[h * a.in.row + w * a.in.col]);
      }
      sum /= static_cast<S>(bin.row_end - bin.row) * static_cast<S>(bin.col_end - bin.col);
    }
    a.pooled[k * a.out.item + channel * a.out.channel + b * a.out.bin] = narrow<T>(sum);
  });
}

template <typename T>
struct PsGradArgs {
  const T* grad;
  RoiStrides grad_strides;
  BinTable table;
  RoiLists lists;
  T* grad_input;
  RoiStrides out;
  int64_t channels;  // of the input
  int64_t last;
};

template <typename T>
__global__ void __launch_bounds__(kThreads, 3) ps_roi_pool_grad_kernel(const PsGradArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_DYNAMIC_SHARED(S, sums);  // [warps, cells, kSumPitch]
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const Tiles tiles = a.lists.tiles;
  const Tile tile(tiles, tiles.first + blockIdx.x);
  const BinTable table = a.table;
  const int cells = tiles.rows * tiles.cols, tile_cols = tiles.cols;
  const int top = static_cast<int>(tile.top), left = static_cast<int>(tile.left);
  const int bottom = top + tiles.rows, right = left + tiles.cols;
  const uint32_t* const list = a.lists.entries + blockIdx.x * a.lists.boxes * 4;
  const int count = a.lists.counts[blockIdx.x];
  const SharedPointer<S> own_sums = sums + (warp * cells * kSumPitch + lane);
  const int64_t bins = table.pooled_height * table.pooled_width;

  for (int64_t slice = int64_t{blockIdx.y} * 32; slice < a.channels;
       slice += int64_t{gridDim.y} * 32) {
    const int64_t channel = slice + lane, of_output = channel / bins,
                  b = channel - of_output * bins;
    const int64_t i = b / table.pooled_width, j = b - i * table.pooled_width;
    for (int c = 0; c < cells; ++c) own_sums[c * kSumPitch] = S(0);
    const int last = static_cast<int>(int64_t{count} * (warp + 1) / warps);
#pragma unroll 1
    for (int e = static_cast<int>(int64_t{count} * warp / warps); e < last && channel < a.channels;
         ++e) {
      const int64_t k = list[int64_t{e} * 4];
      const Bin bin = table.bin(k, b);
      if (bin.empty()) continue;
      const int row = bin.row > top ? bin.row : top, col = bin.col > left ? bin.col : left;
      const int row_end = bin.row_end < bottom ? bin.row_end : bottom;
      const int col_end = bin.col_end < right ? bin.col_end : right;
      if (row >= row_end || col >= col_end) continue;
      const S area = static_cast<S>(bin.row_end - bin.row) * static_cast<S>(bin.col_end - bin.col);
      const S value = widen(a.grad[k * a.grad_strides.item + of_output * a.grad_strides.channel +
                                   i * a.grad_strides.row + j * a.grad_strides.col]) /
                      area;
      for (int h = row; h < row_end; ++h) {
        for (int w = col; w < col_end; ++w) {
          const int place = ((h - top) * tile_cols + w - left) * kSumPitch;
          const S sum = own_sums[place];
          own_sums[place] = sum + value;
        }
      }
    }
    __syncthreads();
    write_tile<T>(sums, tiles, tile, slice, a.channels, a.last != 0, a.grad_input, a.out);
  }
}

}  // namespace amstel::cuda
