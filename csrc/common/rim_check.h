// The checks of the RIM's input and of resampling, and the weights of the latter, the same on every
// device.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/numbers.h"

namespace amstel {

constexpr int64_t kMaxBicubicScale = 64;

inline void check_real(const char* op, const char* name, const Tensor& t) {
  AMSTEL_CHECK(t.dim() == 4 &&
                   (t.scalar_type() == ScalarType::Double || t.scalar_type() == ScalarType::Float),
               op, ": `", name, "` must be float64 or float32 [N, C, H, W], got ", describe(t));
}

// The strides of [items, channels, pixels]; height and width must be one dimension in memory.
struct PlaneStrides {
  int64_t item, channel, pixel;
};

inline PlaneStrides plane_strides(const char* op, const char* name, const Tensor& t) {
  const int64_t height = t.size(2), width = t.size(3);
  const int64_t pixel = width > 1 ? t.stride(3) : height > 1 ? t.stride(2) : 1;
  AMSTEL_CHECK(height <= 1 || width <= 1 || t.stride(2) == width * pixel || t.numel() == 0, op,
               ": `", name, "` must be contiguous or channels last, got strides ", t.stride(2),
               ", ", t.stride(3));
  return {t.stride(0), t.stride(1), pixel};
}

// `t` has the sizes, dtype and device of `eta`.
inline void check_like(const char* op, const char* name, const Tensor& eta, const Tensor& t) {
  bool same = t.dim() == 4 && t.scalar_type() == eta.scalar_type();
  for (int64_t d = 0; same && d < 4; ++d) same = t.size(d) == eta.size(d);
  AMSTEL_CHECK(same, op, ": `", name, "` must be like `eta`, ", describe(eta), ", got ",
               describe(t));
  check_same_device(op, eta, name, t);
}

inline void check_precision(const char* op, const Tensor& eta, const OptionalTensor& precision) {
  if (precision) check_vector(op, eta, "precision", *precision, eta.size(0), eta.scalar_type());
}

// The dtype of the network's input goes with that of eta.
inline void check_output(const char* op, const Tensor& eta, ScalarType dtype) {
  AMSTEL_CHECK(is_float(dtype) && sum_dtype(dtype) == eta.scalar_type(), op,
               ": `dtype` must be float64 for float64, else float32, bfloat16 or float16, got ",
               torch::headeronly::toString(dtype));
}

// Checks of rim_input and its gradient; `other` may be broadcast nowhere, `mask` anywhere.
inline void check_rim_input(const char* op, const Tensor& eta, const Tensor& other,
                            const OptionalTensor& mask, const OptionalTensor& precision,
                            bool residual) {
  check_real(op, "eta", eta);
  check_like(op, "other", eta, other);
  AMSTEL_CHECK(residual || !mask, op, ": `mask` is for a residual");
  if (mask) check_like(op, "mask", eta, *mask);
  check_precision(op, eta, precision);
}

// The gradient of the network's input.
inline void check_rim_grad(const char* op, const Tensor& eta, const Tensor& grad) {
  AMSTEL_CHECK(grad.dim() == 4 && grad.size(0) == eta.size(0) && grad.size(1) == 2 * eta.size(1) &&
                   grad.size(2) == eta.size(2) && grad.size(3) == eta.size(3),
               op, ": `grad` must be [N, 2 C, H, W] for `eta`, ", describe(eta), ", got ",
               describe(grad));
  check_same_device(op, eta, "grad", grad);
}

// ------------------------------------------------------------------------------------- resampling

inline void check_bicubic(const char* op, const char* name, const Tensor& t, int64_t scale) {
  check_real(op, name, t);
  AMSTEL_CHECK(t.is_contiguous(), op, ": `", name, "` must be contiguous");
  AMSTEL_CHECK(scale >= 1 && scale <= kMaxBicubicScale, op, ": `scale` must be from 1 to ",
               kMaxBicubicScale, ", got ", scale);
}

inline void check_rim_bicubic(const char* op, const Tensor& eta, const Tensor& residual,
                              const OptionalTensor& precision, int64_t scale, ScalarType dtype) {
  check_bicubic(op, "eta", eta, scale);
  check_bicubic(op, "residual", residual, scale);
  check_output(op, eta, dtype);
  check_precision(op, eta, precision);
  check_same_device(op, eta, "residual", residual);
  AMSTEL_CHECK(residual.scalar_type() == eta.scalar_type() && residual.size(0) == eta.size(0) &&
                   residual.size(1) == eta.size(1) && residual.size(2) * scale == eta.size(2) &&
                   residual.size(3) * scale == eta.size(3),
               op, ": `residual` must be `eta` made smaller by ", scale, ", ", describe(eta),
               ", got ", describe(residual));
}

// Keys' cubic of a = -0.5, stretched by the scale: the weights of 4 scale pixels, from scale * i +
// first on, in pixel i of the smaller image. They add up to 1.
struct BicubicWeights {
  int64_t first;
  std::vector<double> weight;

  explicit BicubicWeights(int64_t scale) : weight(4 * scale) {
    const double center = 0.5 * static_cast<double>(scale) - 0.5;
    first = static_cast<int64_t>(std::floor(center - 2.0 * static_cast<double>(scale))) + 1;
    double sum = 0;
    for (int64_t k = 0; k < 4 * scale; ++k) {
      const double d =
          std::abs(static_cast<double>(first + k) - center) / static_cast<double>(scale);
      weight[k] = d <= 1  ? (1.5 * d - 2.5) * d * d + 1
                  : d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2
                          : 0;
      sum += weight[k];
    }
    for (double& w : weight) w /= sum;
  }
};

// The adjoint, by pixels m of the larger image of `size * scale`: line[start[m]...start[m + 1]] are
// those of the smaller one that it goes into, and with which weight.
struct BicubicAdjoint {
  std::vector<int64_t> start, line;
  std::vector<double> weight;

  BicubicAdjoint(const BicubicWeights& down, int64_t size, int64_t scale) {
    std::vector<std::vector<std::pair<int64_t, double>>> found(size * scale);
    for (int64_t i = 0; i < size; ++i)
      for (int64_t k = 0; k < 4 * scale; ++k) {
        if (down.weight[k] == 0) continue;
        auto& of = found[mirrored(i * scale + down.first + k, size * scale)];
        if (!of.empty() && of.back().first == i)
          of.back().second += down.weight[k];
        else
          of.emplace_back(i, down.weight[k]);
      }
    start.push_back(0);
    for (const auto& of : found) {
      for (const auto& [i, w] : of) line.push_back(i), weight.push_back(w);
      start.push_back(static_cast<int64_t>(line.size()));
    }
  }
};

}  // namespace amstel
