// The checks of ROI align and position-sensitive ROI pooling, the same on every device.
#pragma once
#include <limits>

#include "common/roi_pool_check.h"

namespace amstel {

// Of a gradient: the shape of what it is the gradient of.
inline RoiShape check_region_grad(const char* op, const Tensor& grad, const Tensor& rois,
                                  double spatial_scale, int64_t images, int64_t height,
                                  int64_t width, bool channels_last) {
  check_images(op, "grad", grad);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  AMSTEL_CHECK(
      images >= 0 && height >= 0 && width >= 0 && images <= kMost && height <= kMost &&
          width <= kMost && height * width <= kMost,
      op, ": `images`, `height`, `width` must be those of a map of at most 2^31 - 1 cells, got ",
      images, ", ", height, ", ", width);
  const RoiShape s = check_rois(op, grad, rois, spatial_scale,
                                {images,
                                 grad.size(1),
                                 height,
                                 width,
                                 0,
                                 grad.size(2),
                                 grad.size(3),
                                 grad.scalar_type(),
                                 {},
                                 channels_last && grad.size(1) > 1});
  check_pooled(op, "grad", grad, grad, s, s.dtype);
  return s;
}

inline void check_sampling(const char* op, int64_t sampling) {
  AMSTEL_CHECK(sampling <= 1 << 15, op, ": `sampling` must be at most 32768, got ", sampling);
}

inline RoiShape of_output(const char* op, RoiShape s) {
  AMSTEL_CHECK(s.channels % s.bins() == 0, op, ": `input` must have a multiple of ",
               s.pooled_height, " x ", s.pooled_width, " channels, got ", s.channels);
  s.channels /= s.bins();
  return s;
}

}  // namespace amstel
