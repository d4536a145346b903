// The checks of the MRI operators, the same on every device. Complex tensors come as real ones with
// a last dimension of 2.
#pragma once
#include "common/check.h"

namespace amstel {

struct MriShape {
  int64_t items, coils, height, width;
  bool shared;  // sensitivities of all images
};

inline void check_complex(const char* op, const char* name, const Tensor& t, int64_t dim) {
  AMSTEL_CHECK(t.dim() == dim && t.size(dim - 1) == 2 && t.is_contiguous() &&
                   (t.scalar_type() == ScalarType::Double || t.scalar_type() == ScalarType::Float),
               op, ": `", name, "` must be contiguous float64 or float32 [N, ",
               dim == 5 ? "coils, " : "", "H, W, 2], got ", describe(t));
}

inline void check_complex_like(const char* op, const char* name, const Tensor& like,
                               const Tensor& t, std::initializer_list<int64_t> sizes) {
  bool same = t.dim() == static_cast<int64_t>(sizes.size()) &&
              t.scalar_type() == like.scalar_type() && t.is_contiguous();
  for (int64_t d = 0; same && d < t.dim(); ++d) same = t.size(d) == sizes.begin()[d];
  if (!same) {
    std::ostringstream wanted;
    for (int64_t size : sizes) wanted << (wanted.tellp() ? ", " : "") << size;
    fail(op, ": `", name, "` must be contiguous ", torch::headeronly::toString(like.scalar_type()),
         " [", wanted.str(), "], got ", describe(t));
  }
  check_same_device(op, like, name, t);
}

// Sensitivities [N or 1, coils, H, W, 2] of images [N, H, W, 2].
inline MriShape check_coils(const char* op, const Tensor& like, const Tensor& sensitivities,
                            int64_t items, int64_t height, int64_t width) {
  check_complex(op, "sensitivities", sensitivities, 5);
  const MriShape s{items, sensitivities.size(1), height, width, sensitivities.size(0) != items};
  check_complex_like(op, "sensitivities", like, sensitivities,
                     {s.shared ? 1 : items, s.coils, height, width, 2});
  return s;
}

inline void check_scale(const char* op, const Tensor& like, const OptionalTensor& scale,
                        int64_t items) {
  if (scale) check_vector(op, like, "scale", *scale, items, like.scalar_type());
}

// Of columns [W], of all images [1, H, W] or of each [N, H, W].
struct MaskShape {
  bool columns, shared;
};

inline MaskShape check_mask(const char* op, const Tensor& like, const Tensor& mask,
                            const MriShape& s) {
  const bool columns = mask.dim() == 1;
  const bool shared = columns || (mask.dim() == 3 && mask.size(0) != s.items);
  if (columns)
    check_vector(op, like, "mask", mask, s.width, like.scalar_type());
  else
    check_complex_like(op, "mask", like, mask, {shared ? 1 : s.items, s.height, s.width});
  return {columns, shared};
}

struct NormalShape {
  MriShape images;
  MaskShape mask;
};

inline NormalShape check_normal(const char* op, const Tensor& x, const Tensor& mask,
                                const OptionalTensor& sensitivities, const OptionalTensor& minus,
                                const OptionalTensor& scale) {
  check_complex(op, "x", x, 4);
  const int64_t items = x.size(0), height = x.size(1), width = x.size(2);
  const MriShape s = sensitivities ? check_coils(op, x, *sensitivities, items, height, width)
                                   : MriShape{items, 1, height, width, false};
  if (minus) check_complex_like(op, "minus", x, *minus, {items, height, width, 2});
  check_scale(op, x, scale, items);
  const MaskShape m = check_mask(op, x, mask, s);
  AMSTEL_CHECK(s.coils || !minus || !x.numel(), op,
               ": `sensitivities` must have a coil where there is a `minus`");
  return {s, m};
}

}  // namespace amstel
