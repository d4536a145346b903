// What the stable ABI lacks.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <initializer_list>

#include "common/check.h"
#include "common/torch_error.h"

namespace amstel {

// "out of memory: could not allocate Float [3, 4]", and what torch has to say about it
__attribute__((noinline, cold)) inline std::string out_of_memory_text(
    std::initializer_list<int64_t> sizes, ScalarType dtype) {
  std::ostringstream out;
  out << "out of memory: could not allocate " << torch::headeronly::toString(dtype) << " [";
  for (const int64_t& size : sizes) out << (&size != sizes.begin() ? ", " : "") << size;
  out << "]";
  if (const auto text = torch_error_text(); !text.empty()) out << ": " << text;
  return out.str();
}

// An uninitialized tensor on the device of `like`, contiguous or channels last: straight to the
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
  const auto failed = aoti_torch_empty_strided(
      sizes.size(), sizes.begin(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), device_type,
      device_index, &handle);
  // Sizes come from tensors that exist: only memory can be short, whether torch says so or not.
  if (failed != TORCH_SUCCESS) throw OutOfMemory(out_of_memory_text(sizes, dtype));
  return Tensor(handle);
}

inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return empty(like, sizes, like.scalar_type());
}

}  // namespace amstel
