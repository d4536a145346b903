// What the launch wrappers of operators on regions share: layouts, grids, the tiles of a gradient,
// and the look at a box that is not valid.
#pragma once

#include <algorithm>

#include "common/roi_pool_check.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/roi_pool_grad.cuh"

namespace amstel::cuda {

// Raises where a.first_bad, at `bad`, is a box; waits for it.
template <class Args>
void raise_first_bad(const char* op, cudaStream_t stream, const unsigned long long* bad,
                     const Args& a, const RoiShape& s) {
  const unsigned long long k = to_host(op, stream, bad);
  if (k >= static_cast<unsigned long long>(s.rois)) return;
  double box[5];
  for (int i = 0; i < 5; ++i)
    box[i] = widen(to_host(op, stream, a.rois + static_cast<int64_t>(k) * a.row + i * a.col));
  fail_roi(op, static_cast<int64_t>(k), box, s.images);
}

inline RoiStrides strides(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

// Of a new [items, channels, bins], channels last or contiguous.
inline PooledStrides pooled_strides(int64_t channels, int64_t bins, bool last) {
  return {channels * bins, last ? 1 : bins, last ? channels : 1};
}

inline RoiStrides strides(const PooledStrides& s, int64_t columns) {
  return {s.item, s.channel, s.bin * columns, s.bin};
}

// Up to a warp along channels, or up to 64 bins, shared out evenly.
inline Share share_of(int64_t accesses, int64_t bins, bool last) {
  int64_t lanes = divide_up(bins, divide_up(bins, 64));
  if (last)
    for (lanes = 1; lanes < accesses && lanes < 32;) lanes *= 2;
  return {accesses, bins, lanes, last};
}

inline dim3 grid_of(const char* op, int64_t boxes, const Share& s) {
  const int64_t along = s.last ? s.bins : s.accesses, across = s.last ? s.accesses : s.bins;
  return dim3(blocks(op, boxes), grid_yz(divide_up(along, kThreads / s.lanes)),
              grid_yz(divide_up(across, s.lanes)));
}

// f(Int<N>{}): channels an access, the 16 bytes of T or one.
template <class T, class F>
void with_width(bool last, int64_t channels, const Alignment& alignment, const F& f) {
  if (last && channels % kVectorWidth<T> == 0 && alignment.allows(16))
    return f(Int<kVectorWidth<T>>{});
  f(Int<1>{});
}

inline Alignment alignment_of(const Tensor& input) {
  const int64_t size = static_cast<int64_t>(input.element_size());
  Alignment a;
  a.pointer(input.const_data_ptr()).bytes(input.stride(0) * size);
  return a.bytes(input.stride(2) * size).bytes(input.stride(3) * size);
}

inline Tensor empty_pooled(const Tensor& like, const RoiShape& s, ScalarType dtype) {
  return empty(like, {s.rois, s.channels, s.pooled_height, s.pooled_width}, dtype, s.channels_last);
}

// Lists of the boxes of each tile, in launches of as many tiles as fit into this many bytes.
#ifdef AMSTEL_EMULATED
constexpr int64_t kListScratch = 1 << 12;  // so that the tests meet several
#else
constexpr int64_t kListScratch = 64 << 20;
#endif

// Large tiles have fewer bins in common, small ones fill the card where a map is small.
inline Tiles tiles_of(const RoiShape& s, int64_t channels) {
  const Tiles large{8, 8, s.height, s.width, 0, 0};
  if (large.of_image() * s.images * channels > int64_t{1} << 17) return large;
  return {4, 8, s.height, s.width, 0, 0};
}

// f(lists, grid, block, shared bytes) for launches of a gradient of T in `channels` channels: to
// write the lists, in a grid of grid.x, and the tiles.
template <class T, class F>
void for_tiles(const char* op, const Tensor& like, const RoiShape& s, int64_t channels,
               const F& f) {
  if (s.images * channels * s.height * s.width == 0) return;
  Tiles tiles = tiles_of(s, channels);
  const int64_t all = tiles.of_image() * s.images, boxes = std::max<int64_t>(1, s.rois);
  const int64_t part = std::min(all, std::max<int64_t>(1, kListScratch / (16 * boxes)));
  const Tensor entries = empty(like, {part, boxes, 4}, ScalarType::Int);
  const Tensor counts = empty(like, {part}, ScalarType::Int);
  const dim3 block(static_cast<unsigned>(32 * kTileSums<T> / (tiles.rows * tiles.cols)));
  const size_t shared = kTileSums<T> * kSumPitch * sizeof(Accumulate<T>);
  for (tiles.first = 0; tiles.first < all; tiles.first += part) {
    tiles.count = std::min(part, all - tiles.first);
    const RoiLists lists{.boxes = s.rois,
                         .tiles = tiles,
                         .entries = static_cast<uint32_t*>(entries.mutable_data_ptr()),
                         .counts = mutable_data<int32_t>(counts)};
    f(lists, dim3(blocks(op, tiles.count), grid_yz(divide_up(channels, 32))), block, shared);
  }
}

}  // namespace amstel::cuda
