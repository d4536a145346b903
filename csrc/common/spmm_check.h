// The checks of the graph operators, the same on every device. All of them O(1): that indices are
// in range is established once, when a Graph is made.
#pragma once
#include "common/csr_check.h"

namespace amstel {

struct SpmmShape {
  int64_t batch, rows, cols, features;
  ScalarType dtype, sum;
};

// x is [cols, F] or [batch, cols, F] with contiguous features; `rows` belong to crow.
inline SpmmShape check_spmm(const char* op, const Tensor& crow, const Tensor& col,
                            const OptionalTensor& edge, const OptionalTensor& weight,
                            const char* x_name, const Tensor& x, const OptionalTensor& row_scale,
                            const OptionalTensor& col_scale, double self_loops) {
  check_csr(op, crow, col, edge);
  AMSTEL_CHECK(x.dim() == 2 || x.dim() == 3, op, ": `", x_name,
               "` must be [N, F] or [B, N, F], got ", describe(x));
  check_same_device(op, crow, x_name, x);
  SpmmShape s;
  s.batch = x.dim() == 3 ? x.size(0) : 1;
  s.rows = crow.size(0) - 1;
  s.cols = x.size(-2 + x.dim());
  s.features = x.size(-1 + x.dim());
  s.dtype = x.scalar_type();
  s.sum = sum_dtype(s.dtype);
  check_float(op, x_name, x);
  if (weight) check_vector(op, crow, "weight", *weight, col.size(0), s.dtype);
  if (row_scale) check_vector(op, crow, "row_scale", *row_scale, s.rows, s.sum);
  if (col_scale) check_vector(op, crow, "col_scale", *col_scale, s.cols, s.sum);
  AMSTEL_CHECK(self_loops == 0 || s.rows == s.cols, op,
               ": self loops need as many rows as columns, got ", s.rows, " and ", s.cols);
  return s;
}

// `s` comes from the transposed matrix and grad: its rows are the nodes of x.
inline void check_spmm_grad(const char* op, const SpmmShape& s, const Tensor& grad,
                            const Tensor& x) {
  check_same_device(op, grad, "x", x);
  AMSTEL_CHECK(x.dim() == grad.dim() && x.scalar_type() == s.dtype &&
                   x.size(x.dim() - 2) == s.rows && x.size(x.dim() - 1) == s.features &&
                   (x.dim() == 2 || x.size(0) == s.batch),
               op, ": `x` must be ", torch::headeronly::toString(s.dtype), " [.., ", s.rows, ", ",
               s.features, "] like `grad`, got ", describe(x));
}

inline void check_epilogue(const char* op, const Tensor& grad, const OptionalTensor& output) {
  AMSTEL_CHECK(grad.dim() >= 1, op, ": `grad` must have at least one dimension, got ",
               describe(grad));
  check_float(op, "grad", grad);
  if (!output) return;
  check_same_device(op, grad, "output", *output);
  AMSTEL_CHECK(output->sizes().equals(grad.sizes()) && output->scalar_type() == grad.scalar_type(),
               op, ": `output` must be like `grad`, ", describe(grad), ", got ", describe(*output));
}

// Returns the dtype of the sums.
inline ScalarType check_edge_sum(const char* op, const Tensor& crow, const OptionalTensor& edge,
                                 const Tensor& a, const OptionalTensor& b) {
  const auto dtype = crow.scalar_type();
  AMSTEL_CHECK(crow.dim() == 1 && crow.size(0) >= 1 && crow.is_contiguous() &&
                   (dtype == ScalarType::Int || dtype == ScalarType::Long),
               op, ": `crow` must be a contiguous Int or Long [rows + 1], got ", describe(crow));
  check_float(op, "a", a);
  check_vector(op, crow, "a", a, a.numel(), a.scalar_type());
  if (edge) check_vector(op, crow, "edge", *edge, a.size(0), dtype);
  const ScalarType sum = sum_dtype(a.scalar_type());
  if (b) check_vector(op, crow, "b", *b, a.size(0), sum);
  return sum;
}

inline void check_edge_add(const char* op, const Tensor& crow, const Tensor& col,
                           const OptionalTensor& edge, const Tensor& value,
                           const OptionalTensor& row_term, const OptionalTensor& col_term,
                           ScalarType dtype) {
  check_csr(op, crow, col, edge);
  AMSTEL_CHECK(is_float(dtype), op, ": `dtype` must be a floating-point type, got ",
               torch::headeronly::toString(dtype));
  const ScalarType sum = sum_dtype(dtype);
  check_vector(op, crow, "value", value, col.size(0), sum);
  if (row_term) check_vector(op, crow, "row_term", *row_term, crow.size(0) - 1, sum);
  if (col_term) check_vector(op, crow, "col_term", *col_term, col_term->numel(), sum);
}

}  // namespace amstel
