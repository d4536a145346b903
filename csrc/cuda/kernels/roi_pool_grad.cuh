// The gradient of ROI max pooling in its input; torch-free.
//
// Data flow.  A block owns cells, so that every sum has one owner and the order of the boxes
// and bins, without atomics.  roi_list_kernel, a block for each tile of an image, goes through the
// boxes 256 at a time, a thread each, and writes down those that touch the tile, in order, with the
// bins that do: 16 bytes an entry.  In roi_pool_grad_kernel a block has a tile and a slice of
// channels, a thread one channel, whose sums for all cells of the tile are a column in shared
// memory: it walks the list and adds the gradient of every bin whose argmax is in the tile.  A bin
// costs 4 + t bytes in each tile that it touches (1 to 2 of them on average), a cell t bytes
// written, once; no thread waits for another.  In roi_match_grad `grad` is the pooled map p, and
// what is added is a_k query + b_k p.
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

// Bins whose argmax and gradient are on their way at a time.
template <typename T>
inline constexpr int kBinsAhead = sizeof(T) == 8 ? 4 : 8;

// Sums of a tile in shared memory: a column a thread, of which one more keeps rows apart that are
// written along columns.
inline int64_t roi_grad_shared(const Tiles& t, int64_t threads, int64_t size) {
  return t.rows * t.cols * (threads + 1) * size;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 4) roi_pool_grad_kernel(const RoiGradArgs<T> a) {
  using S = Accumulate<T>;
  constexpr int kAhead = kBinsAhead<T>;
  AMSTEL_DYNAMIC_SHARED(S, sums);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const Tiles tiles = a.tiles;
  const Tile tile(tiles, tiles.first + blockIdx.x);
  const int cells = tiles.rows * tiles.cols, pitch = threads + 1;
  const int width = static_cast<int>(tiles.width);
  const float per_row = 1.0f / static_cast<float>(width);
  const int origin = static_cast<int>(tile.top * tiles.width + tile.left);
  const int64_t below = tiles.height - tile.top;
  const int rows = static_cast<int>(below < tiles.rows ? below : tiles.rows);
  const unsigned end = static_cast<unsigned>(rows * width - tile.left);
  const uint32_t* const list = a.entries + blockIdx.x * a.boxes * 4;
  const int count = a.counts[blockIdx.x];

  for (int64_t slice = int64_t{blockIdx.y} * threads; slice < a.channels;
       slice += int64_t{gridDim.y} * threads) {
    const int64_t channel = slice + thread;
    for (int c = 0; c < cells; ++c) sums[c * pitch + thread] = S(0);
#pragma unroll 1
    for (int e = 0; e < count && channel < a.channels; ++e) {
      const Vector<uint32_t, 4> entry = load_vector<4>(list + int64_t{e} * 4);
      const int64_t k = entry[0];
      const int i_begin = static_cast<int>(entry[1] & 0xffff);
      const int j_begin = static_cast<int>(entry[2] & 0xffff);
      const int j_end = static_cast<int>(entry[2] >> 16);
      const int bins = (static_cast<int>(entry[1] >> 16) - i_begin) * (j_end - j_begin);
      const int32_t* const argmax =
          a.argmax + k * a.argmax_strides.item + channel * a.argmax_strides.channel;
      const T* const grad = a.grad + k * a.grad_strides.item + channel * a.grad_strides.channel;
      int i = i_begin, j = j_begin;
#pragma unroll 1
      for (int b = 0; b < bins; b += kAhead) {
        unsigned at[kAhead];
        S value[kAhead];
#pragma unroll
        for (int q = 0; q < kAhead; ++q) {
          at[q] = end;
          value[q] = S(0);
          if (b + q >= bins) continue;
          at[q] = static_cast<unsigned>(
              argmax[i * a.argmax_strides.row + j * a.argmax_strides.col] - origin);
          value[q] = widen(grad[i * a.grad_strides.row + j * a.grad_strides.col]);
          if (a.query) {
            const S query = widen(
                a.query[channel * a.of_query.channel + (i * a.pooled_width + j) * a.of_query.bin]);
            value[q] = a.coefficients[2 * k] * query + a.coefficients[2 * k + 1] * value[q];
          }
          if (++j == j_end) ++i, j = j_begin;
        }
#pragma unroll
        for (int q = 0; q < kAhead; ++q) {
          if (at[q] >= end) continue;  // above or below the tile, or nowhere
          int r = static_cast<int>(static_cast<float>(at[q]) * per_row);
          int c = static_cast<int>(at[q]) - r * width;
          if (c < 0) --r, c += width;
          if (c >= width) ++r, c -= width;
          if (c >= tiles.cols) continue;
          const int own = (r * tiles.cols + c) * pitch + thread;
          const S sum = sums[own];
          sums[own] = sum + value[q];
        }
      }
    }
    T* const out = a.grad_input + tile.image * a.out.item;
    if (a.last) {  // a thread its own column
      for (int c = 0; c < cells && channel < a.channels; ++c) {
        const int64_t h = tile.top + c / tiles.cols, w = tile.left + c % tiles.cols;
        if (h >= tiles.height || w >= tiles.width) continue;
        const S sum = sums[c * pitch + thread];
        out[channel * a.out.channel + h * a.out.row + w * a.out.col] = narrow<T>(sum);
      }
      continue;
    }
    __syncthreads();
    for (int n = thread; n < cells * threads; n += threads) {
      const int c = n % cells, lane = n / cells;
      const int64_t h = tile.top + c / tiles.cols, w = tile.left + c % tiles.cols;
      if (h >= tiles.height || w >= tiles.width || slice + lane >= a.channels) continue;
      const S sum = sums[c * pitch + lane];
      out[(slice + lane) * a.out.channel + h * a.out.row + w * a.out.col] = narrow<T>(sum);
    }
    __syncthreads();
  }
}

}  // namespace amstel::cuda
