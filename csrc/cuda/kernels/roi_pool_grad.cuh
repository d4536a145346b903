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

// Lists of the boxes of tiles: entries [tiles, boxes, 4] of a box, from where to before where its
// bins touch the tile, rows and then columns of bins as begin | end << 16, and nothing.
struct RoiLists {
  int64_t boxes;
  Tiles tiles;
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

// Writes the list of the block's tile, in order: touching(box, tile, rows, columns) says whether a
// box does and finds its bins.
template <typename F>
__device__ __forceinline__ void list_boxes(const RoiLists a, const F& touching) {
  AMSTEL_SHARED(unsigned, ballots, kThreads / 32);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const Tiles tiles = a.tiles;
  const Tile tile(tiles, tiles.first + blockIdx.x);
  uint32_t* const list = a.entries + blockIdx.x * a.boxes * 4;
  int total = 0;
  for (int64_t first = 0; first < a.boxes; first += kThreads) {
    const int64_t mine = first + thread;
    Vector<uint32_t, 4> entry = {};
    entry[0] = static_cast<uint32_t>(mine);
    const bool touches = mine < a.boxes && touching(mine, tile, entry[1], entry[2]);
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
    if (touches) store_vector(list + int64_t{slot} * 4, entry);
  }
  if (thread == 0) a.counts[blockIdx.x] = total;
}

struct RoiListArgs {
  BinTable table;
  RoiLists lists;
};

// Weak: it is no template, and more than one file launches it.
__attribute__((weak)) __global__ void __launch_bounds__(kThreads, 4)
    roi_list_kernel(const RoiListArgs a) {
  const BinTable table = a.table;  // copies: the address of an argument is never taken
  const int64_t ph = table.pooled_height, pw = table.pooled_width;
  const int32_t tile_rows = a.lists.tiles.rows, tile_cols = a.lists.tiles.cols;
  list_boxes(a.lists, [=](int64_t k, const Tile& tile, uint32_t& rows, uint32_t& cols) {
    const int32_t* const row = table.of(k);
    if (row[0] != tile.image || row[1] >= tile.top + tile_rows || row[2 * ph] <= tile.top ||
        row[1 + 2 * ph] >= tile.left + tile_cols || row[2 * ph + 2 * pw] <= tile.left)
      return false;
    rows = bins_between(row + 1, ph, tile.top, tile.top + tile_rows);
    cols = bins_between(row + 1 + 2 * ph, pw, tile.left, tile.left + tile_cols);
    return true;
  });
}

constexpr int kItems = 256;    // bins that a block has spread out at a time
constexpr int kSumPitch = 33;  // a column a lane; one more keeps rows apart that go along cells

// Cells of a tile times warps of its block: their sums take 33 KiB.
template <typename T>
inline constexpr int kTileSums = sizeof(T) == 8 ? 128 : 256;

// Spreads the list of the block's tile out: put(slot, box, i, j) for every bin by some thread,
// kItems of them, then walk(first, last) of every warp for its run of slots, and so on. Every
// thread of the block comes along.
template <typename Put, typename Walk>
__device__ __forceinline__ void for_listed_bins(const uint32_t* list, int count, const Put& put,
                                                const Walk& walk) {
  AMSTEL_SHARED(int, totals, kThreads / 32);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int warp = thread / 32, lane = thread % 32, warps = threads / 32;
  for (int chunk = 0; chunk < count; chunk += threads) {
    // Every thread has an entry; its bins come after those of the threads before.
    Vector<uint32_t, 4> entry = {};
    if (chunk + thread < count) entry = load_vector<4>(list + int64_t{chunk + thread} * 4);
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
      for (int q = base > before ? base - before : 0; q < own && before + q < base + kItems; ++q) {
        const int row = q / across;
        put(before + q - base, int64_t{entry[0]}, i_begin + row, j_begin + q - row * across);
      }
      __syncthreads();
      const int held = total - base < kItems ? total - base : kItems;
      walk(held * warp / warps, held * (warp + 1) / warps);
      __syncthreads();
    }
    __syncthreads();  // who reads the totals has done so, also where all are 0
  }
  __syncthreads();  // who reads what others have summed may
}

// Writes the tile's cells of 32 channels from `slice` on: for each the sums of all warps, in order.
template <typename T>
__device__ __forceinline__ void write_tile(SharedPointer<Accumulate<T>> sums, const Tiles& tiles,
                                           const Tile& tile, int64_t slice, int64_t channels,
                                           bool last, T* out, const RoiStrides strides) {
  using S = Accumulate<T>;
  const int threads = static_cast<int>(blockDim.x), cells = tiles.rows * tiles.cols;
  for (int n = static_cast<int>(threadIdx.x); n < cells * 32; n += threads) {
    const int c = last ? n / 32 : n % cells, of = last ? n % 32 : n / cells;
    const int64_t h = tile.top + c / tiles.cols, w = tile.left + c % tiles.cols;
    if (h >= tiles.height || w >= tiles.width || slice + of >= channels) continue;
    S sum = sums[c * kSumPitch + of];
    for (int i = 1; i < threads / 32; ++i) {
      const S more = sums[(i * cells + c) * kSumPitch + of];
      sum += more;
    }
    out[tile.image * strides.item + (slice + of) * strides.channel + h * strides.row +
        w * strides.col] = narrow<T>(sum);
  }
  __syncthreads();  // before the sums of the next slice
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
  int64_t pooled_width;
  RoiLists lists;
  T* grad_input;
  RoiStrides out;
  int64_t channels;
  int64_t last;  // channels are neighbors in memory
};

// kMatched: with a query.
template <typename T, bool kMatched>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 3)
    roi_pool_grad_kernel(const RoiGradArgs<T> a) {
  using S = Accumulate<T>;
  constexpr int kAhead = sizeof(T) == 8 ? 4 : 8;  // bins that are on their way at a time
  AMSTEL_DYNAMIC_SHARED(S, sums);                 // [warps, cells, kSumPitch]
  AMSTEL_SHARED(int64_t, argmax_at, kItems);
  AMSTEL_SHARED(int64_t, grad_at, kItems);
  AMSTEL_SHARED(int64_t, query_at, kMatched ? kItems : 1);
  AMSTEL_SHARED(S, of_query, kMatched ? kItems : 1);  // coefficients
  AMSTEL_SHARED(S, of_pooled, kMatched ? kItems : 1);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const Tiles tiles = a.lists.tiles;
  const Tile tile(tiles, tiles.first + blockIdx.x);
  const int cells = tiles.rows * tiles.cols, tile_cols = tiles.cols;
  const int width = static_cast<int>(tiles.width);
  const float per_row = 1.0f / static_cast<float>(width);
  const int origin = static_cast<int>(tile.top * tiles.width + tile.left);
  const int64_t below = tiles.height - tile.top;
  const int rows = static_cast<int>(below < tiles.rows ? below : tiles.rows);
  const unsigned end = static_cast<unsigned>(rows * width - tile.left);
  const uint32_t* const list = a.lists.entries + blockIdx.x * a.lists.boxes * 4;
  const int count = a.lists.counts[blockIdx.x];
  const SharedPointer<S> own_sums = sums + (warp * cells * kSumPitch + lane);

  for (int64_t slice = int64_t{blockIdx.y} * 32; slice < a.channels;
       slice += int64_t{gridDim.y} * 32) {
    const int64_t channel = slice + lane;
    const bool works = channel < a.channels;
    const int32_t* const argmax = a.argmax + channel * a.argmax_strides.channel;
    const T* const grad = a.grad + channel * a.grad_strides.channel;
    [[maybe_unused]] const T* const query =
        kMatched ? a.query + channel * a.of_query.channel : nullptr;
    for (int c = 0; c < cells; ++c) own_sums[c * kSumPitch] = S(0);
    const auto put = [=](int slot, int64_t k, int i, int j) {
      argmax_at[slot] =
          k * a.argmax_strides.item + i * a.argmax_strides.row + j * a.argmax_strides.col;
      grad_at[slot] = k * a.grad_strides.item + i * a.grad_strides.row + j * a.grad_strides.col;
      if constexpr (kMatched) {
        query_at[slot] = (i * a.pooled_width + j) * a.of_query.bin;
        of_query[slot] = a.coefficients[2 * k];
        of_pooled[slot] = a.coefficients[2 * k + 1];
      }
    };
    const auto walk = [=](int first, int last) {
#pragma unroll 1
      for (int b = first; b < last && works; b += kAhead) {
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
            const S first_part = of_query[b + q], second_part = of_pooled[b + q];
            value = first_part * widen(asked[q]) + second_part * value;
          }
          int r = static_cast<int>(static_cast<float>(at) * per_row);
          int c = static_cast<int>(at) - r * width;
          if (c < 0) --r, c += width;
          if (c >= width) ++r, c -= width;
          if (c >= tile_cols) continue;
          const int place = (r * tile_cols + c) * kSumPitch;
          const S sum = own_sums[place];
          own_sums[place] = sum + value;
        }
      }
    };
    for_listed_bins(list, count, put, walk);
    write_tile<T>(sums, tiles, tile, slice, a.channels, a.last != 0, a.grad_input, a.out);
  }
}

}  // namespace amstel::cuda
