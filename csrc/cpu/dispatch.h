// From run-time dtypes to table entries, and to template arguments for what needs no vector kernel.
#pragma once
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common/csr_check.h"
#include "cpu/isa.h"

namespace amstel::cpu {

// Of the tables of kernels; the dtype has been checked.
inline DtypeIndex dtype_index(ScalarType t) {
  return t == ScalarType::Double     ? kDouble
         : t == ScalarType::Float    ? kFloat
         : t == ScalarType::BFloat16 ? kBFloat16
                                     : kHalf;
}

template <class T>
struct Type {
  using type = T;
};

// f(Type<int32_t>{}) or f(Type<int64_t>{})
template <class F>
void with_index(const char* op, const char* name, const Tensor& t, const F& f) {
  switch (t.scalar_type()) {
    case ScalarType::Int:
      return f(Type<int32_t>{});
    case ScalarType::Long:
      return f(Type<int64_t>{});
    default:
      fail(op, ": `", name, "` must be int32 or int64, got ", describe(t));
  }
}

template <class F>
void with_float(const char* op, const char* name, const Tensor& t, const F& f) {
  switch (t.scalar_type()) {
    case ScalarType::Double:
      return f(Type<double>{});
    case ScalarType::Float:
      return f(Type<float>{});
    case ScalarType::BFloat16:
      return f(Type<torch::headeronly::BFloat16>{});
    case ScalarType::Half:
      return f(Type<torch::headeronly::Half>{});
    default:
      fail(op, ": `", name, "` must be float64, float32, bfloat16 or float16, got ", describe(t));
  }
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
const T* data(const OptionalTensor& t) {
  return t ? data<T>(*t) : nullptr;
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// The last entry of crow is the number of edges; on the CPU a look is free.
inline void check_edges(const char* op, const Tensor& crow, const Tensor& col) {
  with_index(op, "crow", crow, [&](auto type) {
    using I = typename decltype(type)::type;
    check_end(op, data<I>(crow)[crow.size(0) - 1], col.size(0));
  });
}

// The position of the first NaN, or -1.
inline int64_t first_nan(const char* op, const Tensor& weight) {
  int64_t found = -1;
  with_float(op, "weight", weight, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* w = data<T>(weight);
    constexpr int64_t kBlock = 1024;  // without a branch inside, the compiler vectorizes
    for (int64_t b = 0, n = weight.numel(); b < n && found < 0; b += kBlock) {
      const int64_t end = b + kBlock < n ? b + kBlock : n;
      bool any = false;
      for (int64_t k = b; k < end; ++k) any |= w[k] != w[k];
      for (int64_t k = b; any && k < end && found < 0; ++k)
        if (w[k] != w[k]) found = k;
    }
  });
  return found;
}

inline void check_no_nan(const char* op, const Tensor& weight) {
  const int64_t k = first_nan(op, weight);
  if (k >= 0) fail_nan(op, k);
}

}  // namespace amstel::cpu
