// The checks of the graph operators, the same on every device. All of them O(1): that indices are in
// range is established once, when a Graph is made.
#pragma once
#include "common/check.h"

namespace amstel {

inline void check_csr(const char* op, const Tensor& crow, const Tensor& col,
                      const OptionalTensor& edge) {
  const auto dtype = crow.scalar_type();
  AMSTEL_CHECK(crow.dim() == 1 && crow.size(0) >= 1 && crow.is_contiguous() &&
                   (dtype == ScalarType::Int || dtype == ScalarType::Long),
               op, ": `crow` must be a contiguous Int or Long [rows + 1], got ", describe(crow));
  AMSTEL_CHECK(col.dim() == 1, op, ": `col` must be [edges], got ", describe(col));
  check_vector(op, crow, "col", col, col.size(0), dtype);
  if (edge) check_vector(op, crow, "edge", *edge, col.size(0), dtype);
}

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
               "` must be [nodes, features] or [batch, nodes, features], got ", describe(x));
  check_same_device(op, crow, x_name, x);
  SpmmShape s;
  s.batch = x.dim() == 3 ? x.size(0) : 1;
  s.rows = crow.size(0) - 1;
  s.cols = x.size(-2 + x.dim());
  s.features = x.size(-1 + x.dim());
  s.dtype = x.scalar_type();
  s.sum = sum_dtype(s.dtype);
  AMSTEL_CHECK(s.dtype == ScalarType::Float || s.dtype == ScalarType::Double ||
                   s.dtype == ScalarType::BFloat16 || s.dtype == ScalarType::Half,
               op, ": `", x_name, "` must be float64, float32, bfloat16 or float16, got ",
               describe(x));
  if (weight) check_vector(op, crow, "weight", *weight, col.size(0), s.dtype);
  if (row_scale) check_vector(op, crow, "row_scale", *row_scale, s.rows, s.sum);
  if (col_scale) check_vector(op, crow, "col_scale", *col_scale, s.cols, s.sum);
  AMSTEL_CHECK(self_loops == 0 || s.rows == s.cols, op,
               ": self loops need as many rows as columns, got ", s.rows, " and ", s.cols);
  return s;
}

}  // namespace amstel
