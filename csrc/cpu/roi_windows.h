// What the ROI operators on the CPU have in common: boxes by image, the cells that they cover,
// tensors and scratch.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "common/roi_pool_check.h"
#include "common/stable.h"
#include "cpu/huge_pages.h"
#include "cpu/isa.h"

namespace amstel::cpu {

// A window of more bytes than this is taken one channel at a time.
constexpr int64_t kMostScratch = int64_t{1} << 27;

// Rows and columns of cells, from the first to after the last.
struct Bounds {
  int64_t row = std::numeric_limits<int64_t>::max(), row_end = 0, col = row, col_end = 0;
  int64_t cells() const {
    return row < row_end && col < col_end ? (row_end - row) * (col_end - col) : 0;
  }
  void add(const Bounds& o) {
    if (o.cells() == 0) return;
    row = std::min(row, o.row), row_end = std::max(row_end, o.row_end);
    col = std::min(col, o.col), col_end = std::max(col_end, o.col_end);
  }
  // The window of the boxes order[begin], ..., order[end - 1] of an image; of no cells at the
  // origin.
  RoiGroup group(int64_t image, const std::vector<int64_t>& order, int64_t begin,
                 int64_t end) const {
    RoiGroup g{};
    g.image = image, g.boxes = order.data() + begin, g.count = end - begin;
    if (cells() > 0) g.row = row, g.rows = row_end - row, g.col = col, g.cols = col_end - col;
    return g;
  }
};

// Fills `order` with the boxes by image, in the order given; where the boxes of each image begin
// there. image(k) is that of box k.
template <class F>
std::vector<int64_t> by_image(const RoiShape& s, std::vector<int64_t>& order, const F& image) {
  std::vector<int64_t> first(s.images + 1);
  for (int64_t k = 0; k < s.rois; ++k) ++first[image(k) + 1];
  for (int64_t n = 0; n < s.images; ++n) first[n + 1] += first[n];
  std::vector<int64_t> next(first.begin(), first.end());
  for (int64_t k = 0; k < s.rois; ++k) order[next[image(k)]++] = k;
  return first;
}

inline RoiStrides strides(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

inline Tensor empty_pooled(const Tensor& like, const RoiShape& s, ScalarType dtype) {
  Tensor t =
      empty(like, {s.rois, s.channels, s.pooled_height, s.pooled_width}, dtype, s.channels_last);
  want_huge_pages(t);
  return t;
}

inline Tensor empty_images(const Tensor& like, const RoiShape& s, int64_t channels) {
  Tensor t = empty(like, {s.images, channels, s.height, s.width}, s.dtype, s.channels_last);
  want_huge_pages(t);
  return t;
}

inline Tensor zero_images(const Tensor& like, const RoiShape& s, int64_t channels) {
  Tensor t = empty_images(like, s, channels);
  torch::stable::zero_(t);
  return t;
}

// Whether vectors of a gradient of images, channels last, go past the caches (vector.h): it is
// larger than they are, and every vector begins where one may.
inline bool outgrows_caches(const Tensor& t) {
  const int64_t size = t.element_size();
  return t.numel() * size >= kAllCaches && t.size(1) * size % 64 == 0 &&
         reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 64 == 0;
}

// Memory of a thread, from a boundary of 64 bytes on.
struct Scratch {
  explicit Scratch(int64_t bytes) : memory(::operator new(bytes, kAlignment)) {}
  ~Scratch() { ::operator delete(memory, kAlignment); }
  Scratch(const Scratch&) = delete;
  static constexpr std::align_val_t kAlignment{64};
  void* const memory;
};

}  // namespace amstel::cpu
