// The gradient of ROI max pooling in its input; torch-free.
//
// Data flow.  A block owns cells, so that every sum has one owner and no atomics are needed.
// roi_list_kernel, a block for each tile of an image, goes through the boxes 256 at a time, a
// thread each, and writes down those that touch the tile, in order, with the bins that do: 16 bytes
// an entry.  In roi_pool_grad_kernel a block has a tile and 32 channels, a lane each; its threads
// spread the list out, bin by bin, kItems at a time, and every warp takes an equal run of them,
// several on their way at a time: where the argmax is in the tile, the gradient is added to the sum
// of its cell, which the warp has of its own in shared memory.  At the end the sums of the warps
// are added up, in order: which bins a warp has depends on the boxes alone, and so do the bits.  A
// bin costs 4 + t bytes in each tile that it touches, a cell t bytes written, once.  In
// roi_match_grad `grad` is the pooled map p, and what is added is a_k query + b_k p.
//
// The time is that of the fullest tile: as many bins as have their turn one after the other in a
// warp, each batch of them a latency of memory.  So tiles are small and have many warps where boxes
// crowd, and larger, which read less twice, where a map is large.
//
// Offsets are 64-bit throughout; bins and cells of a map are counted in 32.
#pragma once

#include "cuda/kernels/roi_pool.cuh"

namespace amstel::cuda {

// Tiles of `rows` x `cols` cells, numbered along columns, then rows, then images.
struct Tiles {
  int32_t rows, cols;
  int64_t height, width;
  int64_t first, count;  // of this launch

  __host__ __device__ int64_t across() const { return (width + cols - 1) / cols; }
  __host__ __device__ int64_t of_image() const { return (height + rows - 1) / rows * across(); }
};

struct Tile {
  int64_t image, top, left;
  __device__ __forceinline__ Tile(const Tiles& t, int64_t number) {
    const int64_t across = t.across(), of_image = t.of_image();
    image = number / of_image;
    const int64_t in_image = number - image * of_image;
    top = in_image / across * t.rows;
    left = in_image % across * t.cols;
  }
};

struct RoiListArgs {
  BinTable table;
  int64_t boxes;
  Tiles tiles;
  // [tiles, boxes, 4]: a box, from where to before where its bins touch the tile, rows and then
  // columns of bins as begin | end << 16, and nothing.
  uint32_t* entries;
  int32_t* counts;  // [tiles]
};

// Begins and ends both ascend: the bins that end before `from` come before, those that begin before
// `to` do not come after.
__device__ __forceinline__ uint32_t bins_between(const int32_t* begin, int64_t bins, int64_t from,
                                                 int64_t to) {
  uint32_t first = 0, last = 0;
#pragma unroll 1
  for (int64_t b = 0; b < bins; ++b) {
    first += begin[bins + b] <= from;
    last += begin[b] < to;
  }
  return first | last << 16;
}

__global__ void __launch_bounds__(kThreads, 4) roi_list_kernel(const RoiListArgs a) {
  AMSTEL_SHARED(unsigned, ballots, kThreads / 32);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const Tiles tiles = a.tiles;
  const BinTable table = a.table;  // copies: the address of an argument is never taken
  const Tile tile(tiles, tiles.first + blockIdx.x);
  const int64_t ph = table.pooled_height, pw = table.pooled_width;
  uint32_t* const list = a.entries + blockIdx.x * a.boxes * 4;
  int total = 0;
  for (int64_t first = 0; first < a.boxes; first += kThreads) {
    const int64_t mine = first + thread;
    const int32_t* const row = table.of(mine);
    bool touches = mine < a.boxes && row[0] == tile.image;
    if (touches)
      touches = row[1] < tile.top + tiles.rows && row[2 * ph] > tile.top &&
                row[1 + 2 * ph] < tile.left + tiles.cols && row[2 * ph + 2 * pw] > tile.left;
    const unsigned ballot = __ballot_sync(0xffffffffu, touches);
    __syncthreads();  // who read the last ballots has done so
    if (thread % 32 == 0) ballots[warp] = ballot;
    __syncthreads();
    int slot = total + __popc(ballot & ((1u << thread % 32) - 1));
#pragma unroll
    for (int i = 0; i < kThreads / 32; ++i) {
      const unsigned other = ballots[i];
      if (i < warp) slot += __popc(other);
      total += __popc(other);
    }
    if (!touches) continue;
    Vector<uint32_t, 4> entry;
    entry[0] = static_cast<uint32_t>(mine);
    entry[1] = bins_between(row + 1, ph, tile.top, tile.top + tiles.rows);
    entry[2] = bins_between(row + 1 + 2 * ph, pw, tile.left, tile.left + tiles.cols);
    entry[3] = 0;
    store_vector(list + int64_t{slot} * 4, entry);
  }
  if (thread == 0) a.counts[blockIdx.x] = total;
}

template <typename T>
struct RoiGradArgs {
  const T* grad;  // or the pooled maps, with a query
  RoiStrides grad_strides;
  const int32_t* argmax;
  RoiStrides argmax_strides;
  const T* query;  // null without, like its coefficients, two a box
  PooledStrides of_query;
  const Accumulate<T>* coefficients;
  int64_t pooled_width, boxes;
  Tiles tiles;
  const uint32_t* entries;
  const int32_t* counts;
  T* grad_input;
  RoiStrides out;
  int64_t channels;
  int64_t last;  // channels are neighbors in memory
};

constexpr int kItems = 256;    // bins that a block has spread out at a time
constexpr int kSumPitch = 33;  // a column a lane; one more keeps rows apart that go along cells

// Cells of a tile times warps of its block: their sums take 33 KiB.
template <typename T>
inline constexpr int kTileSums = sizeof(T) == 8 ? 128 : 256;

// kMatched: with a query.
template <typename T, bool kMatched>
__global__ void __launch_bounds__(kThreads, 3) roi_pool_grad_kernel(const RoiGradArgs<T> a) {
  using S = Accumulate<T>;
  constexpr int kAhead = sizeof(T) == 8 ? 4 : 8;  // bins that are on their way at a time
  AMSTEL_DYNAMIC_SHARED(S, sums);                 // [warps, cells, kSumPitch]
  AMSTEL_SHARED(int64_t, argmax_at, kItems);
  AMSTEL_SHARED(int64_t, grad_at, kItems);
  AMSTEL_SHARED(int64_t, query_at, kMatched ? kItems : 1);
  AMSTEL_SHARED(S, of_query, kMatched ? kItems : 1);  // coefficients
  AMSTEL_SHARED(S, of_pooled, kMatched ? kItems : 1);
  AMSTEL_SHARED(int, totals, kThreads / 32);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int warp = thread / 32, lane = thread % 32, warps = threads / 32;
  const Tiles tiles = a.tiles;
  const Tile tile(tiles, tiles.first + blockIdx.x);
  const int cells = tiles.rows * tiles.cols;
  const int width = static_cast<int>(tiles.width);
  const float per_row = 1.0f / static_cast<float>(width);
  const int origin = static_cast<int>(tile.top * tiles.width + tile.left);
  const int64_t below = tiles.height - tile.top;
  const int rows = static_cast<int>(below < tiles.rows ? below : tiles.rows);
  const unsigned end = static_cast<unsigned>(rows * width - tile.left);
  const uint32_t* const list = a.entries + blockIdx.x * a.boxes * 4;
  const int count = a.counts[blockIdx.x];

  const SharedPointer<S> own_sums = sums + (warp * cells * kSumPitch + lane);
  for (int64_t slice = int64_t{blockIdx.y} * 32; slice < a.channels;
       slice += int64_t{gridDim.y} * 32) {
    const int64_t channel = slice + lane;
    const int32_t* const argmax = a.argmax + channel * a.argmax_strides.channel;
    const T* const grad = a.grad + channel * a.grad_strides.channel;
    [[maybe_unused]] const T* const query =
        kMatched ? a.query + channel * a.of_query.channel : nullptr;
    for (int c = 0; c < cells; ++c) own_sums[c * kSumPitch] = S(0);
    for (int chunk = 0; chunk < count; chunk += threads) {
      // Every thread has an entry; its bins come after those of the threads before.
      Vector<uint32_t, 4> entry = {};
      if (chunk + thread < count) entry = load_vector<4>(list + int64_t{chunk + thread} * 4);
      const int64_t k = entry[0];
      const int i_begin = static_cast<int>(entry[1] & 0xffff);
      const int j_begin = static_cast<int>(entry[2] & 0xffff);
      const int across = static_cast<int>(entry[2] >> 16) - j_begin;
      const int own = (static_cast<int>(entry[1] >> 16) - i_begin) * across;
      int before = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, before, step);
        if (lane >= step) before += other;
      }
      if (lane == 31) totals[warp] = before;
      before -= own;
      __syncthreads();
      int total = 0;
      for (int w = 0; w < warps; ++w) {
        const int of_warp = totals[w];
        if (w < warp) before += of_warp;
        total += of_warp;
      }
      for (int base = 0; base < total; base += kItems) {
        for (int q = base > before ? base - before : 0; q < own && before + q < base + kItems;
             ++q) {
          const int row = q / across, i = i_begin + row, j = j_begin + q - row * across;
          const int slot = before + q - base;
          argmax_at[slot] =
              k * a.argmax_strides.item + i * a.argmax_strides.row + j * a.argmax_strides.col;
          grad_at[slot] = k * a.grad_strides.item + i * a.grad_strides.row + j * a.grad_strides.col;
          if constexpr (kMatched) {
            query_at[slot] = (i * a.pooled_width + j) * a.of_query.bin;
            of_query[slot] = a.coefficients[2 * k];
            of_pooled[slot] = a.coefficients[2 * k + 1];
          }
        }
        __syncthreads();
        const int held = total - base < kItems ? total - base : kItems;
        const int last = held * (warp + 1) / warps;
#pragma unroll 1
        for (int b = held * warp / warps; b < last && channel < a.channels; b += kAhead) {
          // Loads alone first, the last bin again where there are no more, so that all are on their
          // way before one is looked at.
          int32_t points[kAhead];
          T given[kAhead], asked[kMatched ? kAhead : 1];
#pragma unroll
          for (int q = 0; q < kAhead; ++q) {
            const int from = b + q < last ? b + q : last - 1;
            const int64_t of_argmax = argmax_at[from], of_grad = grad_at[from];
            points[q] = argmax[of_argmax];
            given[q] = grad[of_grad];
            if constexpr (kMatched) {
              const int64_t of_bin = query_at[from];
              asked[q] = query[of_bin];
            }
          }
#pragma unroll
          for (int q = 0; q < kAhead; ++q) {
            const unsigned at = static_cast<unsigned>(points[q] - origin);
            if (b + q >= last || at >= end) continue;  // above or below the tile, or nowhere
            S value = widen(given[q]);
            if constexpr (kMatched) {
              const S first = of_query[b + q], second = of_pooled[b + q];
              value = first * widen(asked[q]) + second * value;
            }
            int r = static_cast<int>(static_cast<float>(at) * per_row);
            int c = static_cast<int>(at) - r * width;
            if (c < 0) --r, c += width;
            if (c >= width) ++r, c -= width;
            if (c >= tiles.cols) continue;
            const int place = (r * tiles.cols + c) * kSumPitch;
            const S sum = own_sums[place];
            own_sums[place] = sum + value;
          }
        }
        __syncthreads();
      }
      __syncthreads();  // who reads the totals has done so, also where all are 0
    }
    if (count == 0) __syncthreads();
    T* const out = a.grad_input + tile.image * a.out.item;
    for (int n = thread; n < cells * 32; n += threads) {
      const int c = a.last ? n / 32 : n % cells, of = a.last ? n % 32 : n / cells;
      const int64_t h = tile.top + c / tiles.cols, w = tile.left + c % tiles.cols;
      if (h >= tiles.height || w >= tiles.width || slice + of >= a.channels) continue;
      S sum = sums[c * kSumPitch + of];
      for (int i = 1; i < warps; ++i) {
        const S more = sums[(i * cells + c) * kSumPitch + of];
        sum += more;
      }
      out[(slice + of) * a.out.channel + h * a.out.row + w * a.out.col] = narrow<T>(sum);
    }
    __syncthreads();  // before the sums of the next slice
  }
}

}  // namespace amstel::cuda
