// The checks of the ConvLSTM gates, the same on every device.
#pragma once
#include <algorithm>

#include "common/check.h"

namespace amstel {

struct GateShape {
  int64_t rows, inner;
  ScalarType dtype, sum;
  ScalarType state;  // of c: dtype or sum
};

// A contiguous [rows, width] of `dtype` on the device of `like`.
inline void check_rows(const char* op, const Tensor& like, const char* name, const Tensor& t,
                       int64_t rows, int64_t width, ScalarType dtype) {
  AMSTEL_CHECK(t.dim() == 2 && t.size(0) == rows && t.size(1) == width &&
                   t.scalar_type() == dtype && t.is_contiguous(),
               op, ": `", name, "` must be a contiguous ", torch::headeronly::toString(dtype), " [",
               rows, ", ", width, "], got ", describe(t));
  check_same_device(op, like, name, t);
}

inline GateShape check_gates(const char* op, const char* name, const Tensor& gates, const Tensor& c,
                             const OptionalTensor& peephole) {
  const ScalarType dtype = gates.scalar_type();
  AMSTEL_CHECK(
      gates.dim() == 2 && gates.size(1) % 4 == 0 && gates.is_contiguous() && is_float(dtype), op,
      ": `", name, "` must be a contiguous floating-point [rows, 4 * inner], got ",
      describe(gates));
  const ScalarType sum = sum_dtype(dtype);
  const GateShape s{gates.size(0), gates.size(1) / 4, dtype, sum,
                    c.scalar_type() == dtype ? dtype : sum};
  check_rows(op, gates, "c", c, s.rows, s.inner, s.state);
  if (peephole) check_rows(op, gates, "peephole", *peephole, 3, s.inner, s.sum);
  return s;
}

inline GateShape check_forward(const char* op, const Tensor& gates, const OptionalTensor& more,
                               const Tensor& c, const OptionalTensor& peephole, const Tensor& h,
                               const Tensor& c_out, const OptionalTensor& activated,
                               bool on_cuda = false) {
  const GateShape s = check_gates(op, "gates", gates, c, peephole);
  const bool one = on_cuda && more && more->dim() == 2 && more->size(0) == 1;
  if (more) check_rows(op, gates, "more", *more, one ? 1 : s.rows, 4 * s.inner, s.dtype);
  // Rows of h may lie apart, as where they are channels beside others.
  const bool apart = on_cuda && h.dim() == 2 && h.size(0) == s.rows && h.size(1) == s.inner &&
                     h.scalar_type() == s.dtype && h.stride(1) == 1 && h.stride(0) >= s.inner;
  if (!apart) check_rows(op, gates, "h", h, s.rows, s.inner, s.dtype);
  check_same_device(op, gates, "h", h);
  check_rows(op, gates, "c_out", c_out, s.rows, s.inner, s.state);
  if (activated) check_rows(op, gates, "activated", *activated, s.rows, 4 * s.inner, s.dtype);
  return s;
}

inline GateShape check_backward(const char* op, const Tensor& activated, const Tensor& c,
                                const Tensor& c_out, const OptionalTensor& peephole,
                                const OptionalTensor& grad_h, const OptionalTensor& grad_h_more,
                                const OptionalTensor& grad_c, const Tensor& grad_c_out,
                                const Tensor& grad_gates) {
  const GateShape s = check_gates(op, "activated", activated, c, peephole);
  check_rows(op, c, "c_out", c_out, s.rows, s.inner, s.state);
  if (grad_h) check_rows(op, c, "grad_h", *grad_h, s.rows, s.inner, s.dtype);
  if (grad_h_more) check_rows(op, c, "grad_h_more", *grad_h_more, s.rows, s.inner, s.dtype);
  if (grad_c) check_rows(op, c, "grad_c", *grad_c, s.rows, s.inner, s.state);
  check_rows(op, c, "grad_c_out", grad_c_out, s.rows, s.inner, s.state);
  check_rows(op, c, "grad_gates", grad_gates, s.rows, 4 * s.inner, s.dtype);
  return s;
}

// Rows whose sums the gradient adds up in one, a function of the shape alone, so that bits are the
// same for any number of threads (the fake kernel in python/amstel/ops/_conv_lstm_fake.py knows it
// too). The sums are 4 or 7 numbers for at least 8 times as many cells; 4096 cells keep the threads
// of a block busy where a row is short.
inline int64_t rows_per_block(int64_t inner) {
  return std::max<int64_t>(8, 4096 / std::max<int64_t>(1, inner));
}

}  // namespace amstel
