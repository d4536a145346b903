// PyTorch's operators and this library's, called by their names, and the views that lie between
// such calls: for operators that are put together from others, without Python.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <vector>

#include "common/stable.h"

namespace amstel {

using Sizes = std::vector<int64_t>;

template <class... Args>
std::array<StableIValue, sizeof...(Args)> dispatch(const char* op, const char* overload,
                                                   const Args&... args) {
  std::array<StableIValue, sizeof...(Args)> stack{torch::stable::detail::from(args)...};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher(op, overload, stack.data(), TORCH_ABI_VERSION));
  return stack;
}

inline Tensor taken(StableIValue value) { return torch::stable::detail::to<Tensor>(value); }

template <class... Args>
Tensor call(const char* op, const char* overload, const Args&... args) {
  return taken(dispatch(op, overload, args...)[0]);
}

inline Tensor as(const Tensor& t, const Sizes& sizes) { return torch::stable::view(t, sizes); }

inline Tensor part(const Tensor& t, int64_t dim, int64_t start, int64_t length) {
  Tensor whole = t;
  return torch::stable::narrow(whole, dim, start, length);
}

inline Tensor at(const Tensor& t, int64_t index) { return torch::stable::select(t, 0, index); }
inline OptionalTensor at(const OptionalTensor& t, int64_t index) {
  return t ? OptionalTensor(at(*t, index)) : std::nullopt;
}

// [n, H, W, C] as [n, C, H, W]
inline Tensor first(const Tensor& t) { return call("aten::permute", "", t, Sizes{0, 3, 1, 2}); }

// [..., C, H, W] as contiguous [..., H, W, C]; no copy of a channels_last tensor.
inline Tensor last(const Tensor& t) {
  Sizes order;
  for (int64_t d = 0; d < t.dim() - 3; ++d) order.push_back(d);
  for (const int64_t d : {2, 1, 3}) order.push_back(t.dim() - d);
  return torch::stable::contiguous(call("aten::permute", "", t, order));
}

}  // namespace amstel
