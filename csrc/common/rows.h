// Feature matrices as the kernels take them.
#pragma once
#include <torch/csrc/stable/ops.h>

#include "common/check.h"

namespace amstel {

// A matrix or a batch of them, rows of contiguous features; copied where the features are not.
struct Rows {
  Tensor tensor;
  int64_t stride, batch_stride;
  explicit Rows(const Tensor& t) : tensor(t) {
    const int64_t d = t.dim();
    if (t.size(d - 1) > 1 && t.stride(d - 1) != 1) tensor = torch::stable::contiguous(t);
    stride = tensor.stride(d - 2);
    batch_stride = d == 3 ? tensor.stride(0) : 0;
  }
  const void* item(int64_t b) const {
    return static_cast<const char*>(tensor.const_data_ptr()) +
           b * batch_stride * static_cast<int64_t>(tensor.element_size());
  }
};

inline const void* pointer(const OptionalTensor& t) { return t ? t->const_data_ptr() : nullptr; }

}  // namespace amstel
