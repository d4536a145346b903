// Errors that name the operator, the argument, what was expected and what came.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace amstel {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <class... Parts>
[[noreturn]] __attribute__((noinline, cold)) void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

#define AMSTEL_CHECK(condition, ...) \
  if (!(condition)) [[unlikely]]     \
  ::amstel::fail(__VA_ARGS__)

// "Float [3, 4] on cpu"
inline std::string describe(const Tensor& t) {
  std::ostringstream out;
  out << torch::headeronly::toString(t.scalar_type()) << " [";
  for (int64_t d = 0; d < t.dim(); ++d) out << (d ? ", " : "") << t.size(d);
  out << (t.is_cpu() ? "] on cpu" : t.is_cuda() ? "] on cuda" : "] on another device");
  return out.str();
}

inline void check_same_device(const char* op, const Tensor& like, const char* name,
                              const Tensor& t) {
  AMSTEL_CHECK(t.is_cpu() == like.is_cpu() && t.get_device() == like.get_device(), op, ": `", name,
               "` must be on the same device as the others, got ", describe(t));
}

// A contiguous vector of `size` elements of one dtype on the device of `like`.
inline void check_vector(const char* op, const Tensor& like, const char* name, const Tensor& t,
                         int64_t size, ScalarType dtype) {
  AMSTEL_CHECK(t.dim() == 1 && t.size(0) == size && t.scalar_type() == dtype && t.is_contiguous(),
               op, ": `", name, "` must be a contiguous ", torch::headeronly::toString(dtype), " [",
               size, "], got ", describe(t));
  check_same_device(op, like, name, t);
}

inline bool is_float(ScalarType t) {
  return t == ScalarType::Double || t == ScalarType::Float || t == ScalarType::BFloat16 ||
         t == ScalarType::Half;
}

inline void check_float(const char* op, const char* name, const Tensor& t) {
  AMSTEL_CHECK(is_float(t.scalar_type()), op, ": `", name,
               "` must be float64, float32, bfloat16 or float16, got ", describe(t));
}

// The dtype in which sums are kept: double for double, float for everything else.
inline ScalarType sum_dtype(ScalarType t) {
  return t == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace amstel
