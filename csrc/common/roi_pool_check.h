// The checks of the ROI operators, the same on every device.
#pragma once
#include <cmath>
#include <limits>

#include "common/check.h"
#include "common/roi.h"

namespace amstel {

struct RoiShape {
  int64_t images, channels, height, width, rois, pooled_height, pooled_width;
  ScalarType dtype;
  roi::Arithmetic arithmetic;
  bool channels_last;
  int64_t bins() const { return pooled_height * pooled_width; }
};

// In the dtype of input and boxes (bfloat16, which torchvision does not know, in float64); in that
// of the boxes, at least float32, where they differ.
inline roi::Arithmetic arithmetic_of(ScalarType input, ScalarType rois) {
  if (rois == ScalarType::Double || (rois == input && rois == ScalarType::BFloat16))
    return roi::Arithmetic::kDouble;
  return rois == input && rois == ScalarType::Half ? roi::Arithmetic::kHalf
                                                   : roi::Arithmetic::kFloat;
}

// Results are laid out as the input: channels last where its channels are neighbors.
inline bool channels_last(const Tensor& t) {
  return t.size(1) > 1 && t.stride(1) == 1 && !t.is_contiguous();
}

inline void check_images(const char* op, const char* name, const Tensor& t) {
  AMSTEL_CHECK(t.dim() == 4 && is_float(t.scalar_type()), op, ": `", name,
               "` must be a floating-point tensor [N, C, H, W], got ", describe(t));
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  AMSTEL_CHECK(t.size(0) <= kMost && t.size(2) * t.size(3) <= kMost, op, ": `", name,
               "` must have at most 2^31 - 1 images, and cells in each, got ", describe(t));
}

// Of the operators that read maps, `input`, and of those that write them.
inline RoiShape check_rois(const char* op, const Tensor& like, const Tensor& rois,
                           double spatial_scale, RoiShape s) {
  AMSTEL_CHECK(rois.dim() == 2 && rois.size(1) == 5 && is_float(rois.scalar_type()), op,
               ": `rois` must be a floating-point [K, 5], got ", describe(rois));
  check_same_device(op, like, "rois", rois);
  AMSTEL_CHECK(s.pooled_height >= 1 && s.pooled_width >= 1 && s.pooled_height <= 1 << 15 &&
                   s.pooled_width <= 1 << 15,
               op, ": `output_size` must be from 1 to 32768, got ", s.pooled_height, " x ",
               s.pooled_width);
  AMSTEL_CHECK(std::isfinite(spatial_scale) && spatial_scale > 0, op,
               ": `spatial_scale` must be a finite number above 0, got ", spatial_scale);
  s.rois = rois.size(0);
  s.arithmetic = arithmetic_of(s.dtype, rois.scalar_type());
  return s;
}

inline RoiShape check_rois(const char* op, const Tensor& input, const Tensor& rois,
                           double spatial_scale, int64_t pooled_height, int64_t pooled_width) {
  check_images(op, "input", input);
  return check_rois(op, input, rois, spatial_scale,
                    {input.size(0),
                     input.size(1),
                     input.size(2),
                     input.size(3),
                     0,
                     pooled_height,
                     pooled_width,
                     input.scalar_type(),
                     {},
                     channels_last(input)});
}

// [K, C, ph, pw] of the rois in the layout of a result.
inline void check_pooled(const char* op, const char* name, const Tensor& like, const Tensor& t,
                         const RoiShape& s, ScalarType dtype) {
  AMSTEL_CHECK(
      t.dim() == 4 && t.size(0) == s.rois && t.size(1) == s.channels &&
          t.size(2) == s.pooled_height && t.size(3) == s.pooled_width && t.scalar_type() == dtype,
      op, ": `", name, "` must be a ", torch::headeronly::toString(dtype), " [", s.rois, ", ",
      s.channels, ", ", s.pooled_height, ", ", s.pooled_width, "], got ", describe(t));
  check_same_device(op, like, name, t);
}

inline RoiShape check_rois_of_grad(const char* op, const Tensor& grad, const Tensor& argmax,
                                   const Tensor& rois, double spatial_scale, int64_t images,
                                   int64_t height, int64_t width, bool channels_last) {
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
  check_pooled(op, "argmax", grad, argmax, s, ScalarType::Int);
  return s;
}

// The query of roi_match: contiguous, in the dtype of the features, [C, ph, pw] in any shape.
inline void check_query(const char* op, const Tensor& input, const Tensor& query,
                        const RoiShape& s) {
  check_vector(op, input, "query", query, s.channels * s.bins(), s.dtype);
}

// Two a roi, in the dtype of sums.
inline void check_coefficients(const char* op, const Tensor& input, const Tensor& t,
                               const RoiShape& s) {
  AMSTEL_CHECK(t.dim() == 2 && t.size(0) == s.rois && t.size(1) == 2 &&
                   t.scalar_type() == sum_dtype(s.dtype) && t.is_contiguous(),
               op, ": `coefficients` must be a contiguous ",
               torch::headeronly::toString(sum_dtype(s.dtype)), " [", s.rois, ", 2], got ",
               describe(t));
  check_same_device(op, input, "coefficients", t);
}

[[noreturn]] inline void fail_roi(const char* op, int64_t k, const double* box, int64_t images) {
  fail(op, ": `boxes` must have finite coordinates and a whole batch index from 0 to ", images - 1,
       ", got (", box[0], ", ", box[1], ", ", box[2], ", ", box[3], ", ", box[4], ") in row ", k);
}

}  // namespace amstel
