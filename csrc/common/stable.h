// What the stable ABI lacks.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <initializer_list>

#include "common/check.h"

namespace amstel {

// An uninitialised tensor on the device of `like`, contiguous or channels last: straight to the
// allocator, where torch::stable::new_empty looks an operator up by its name at every call.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType dtype,
                    bool channels_last = false) {
  std::array<int64_t, 8> strides;  // no operator has more dimensions
  int64_t stride = 1;
  const auto next = [&](int64_t d) {
    strides[d] = stride;
    stride *= sizes.begin()[d] > 1 ? sizes.begin()[d] : 1;
  };
  if (channels_last) next(1);
  for (int64_t d = static_cast<int64_t>(sizes.size()) - 1; d >= 0; --d)
    if (d != 1 || !channels_last) next(d);
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      sizes.size(), sizes.begin(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), device_type,
      device_index, &handle));
  return Tensor(handle);
}

inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return empty(like, sizes, like.scalar_type());
}

}  // namespace amstel
