// The checks of graph structure, the same on every device, and the words of their errors.
#pragma once
#include <algorithm>
#include <limits>

#include "common/check.h"

namespace amstel {

// ---- In O(1), before anything is read ----

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

inline void check_weight(const char* op, const Tensor& like, const OptionalTensor& weight,
                         int64_t edges) {
  if (!weight) return;
  check_vector(op, like, "weight", *weight, edges, weight->scalar_type());
  check_float(op, "weight", *weight);
}

inline void check_coo(const char* op, const Tensor& row, const Tensor& col, int64_t num_rows,
                      int64_t num_cols, const OptionalTensor& weight) {
  AMSTEL_CHECK(row.dim() == 1 && row.is_contiguous(), op,
               ": `row` must be a contiguous [edges], got ", describe(row));
  AMSTEL_CHECK(num_rows >= 0 && num_cols >= 0, op, ": sizes must not be negative, got ", num_rows,
               " rows and ", num_cols, " columns");
  check_vector(op, row, "col", col, row.size(0), row.scalar_type());
  check_weight(op, row, weight, row.size(0));
  AMSTEL_CHECK(row.scalar_type() == ScalarType::Int || row.scalar_type() == ScalarType::Long, op,
               ": `row` must be int32 or int64, got ", describe(row));
}

// ---- Of what has been found in the entries ----

inline void check_end(const char* op, int64_t end, int64_t edges) {
  AMSTEL_CHECK(end == edges, op, ": `crow` must end at the number of edges, ", edges, ", got ",
               end);
}

[[noreturn]] inline void fail_nan(const char* op, int64_t position) {
  fail(op, ": `weight` must not be NaN, got NaN at position ", position);
}

[[noreturn]] inline void fail_source(int64_t index, int64_t size, int64_t edge) {
  fail("source index must be in [0, ", size, "), got ", index, " at edge ", edge);
}

// Edge k of an edge list, whose row or else column is out of range.
[[noreturn]] inline void fail_edge(int64_t row, int64_t col, int64_t num_rows, int64_t num_cols,
                                   int64_t k) {
  if (row >= 0 && row < num_rows) fail_source(col, num_cols, k);
  fail("target index must be in [0, ", num_rows, "), got ", row, " at edge ", k);
}

inline void check_indptr_start(int64_t start) {
  AMSTEL_CHECK(start == 0, "indptr must start at 0, got ", start);
}

[[noreturn]] inline void fail_indptr(int64_t begin, int64_t end, int64_t row) {
  fail("indptr must not decrease, got ", begin, " and ", end, " at row ", row);
}

inline void check_indptr_end(int64_t end, int64_t edges) {
  AMSTEL_CHECK(end == edges, "indptr must end at the number of edges, ", edges, ", got ", end);
}

// ---- Results ----

// Whether they have int32 indices.
inline bool fits_int32(int64_t edges, int64_t rows, int64_t cols) {
  return std::max({edges, rows, cols}) < std::numeric_limits<int32_t>::max();
}

template <class I>
constexpr ScalarType index_type = sizeof(I) == 4 ? ScalarType::Int : ScalarType::Long;

}  // namespace amstel
