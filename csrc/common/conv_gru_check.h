// The checks of the ConvGRU gates, the same on every device.
#pragma once
#include "common/conv_lstm_check.h"

namespace amstel {

// h [rows, inner] and gates [rows, 3 inner], contiguous and of one dtype.
inline GateShape check_gru(const char* op, const Tensor& h) {
  const ScalarType dtype = h.scalar_type();
  AMSTEL_CHECK(h.dim() == 2 && h.is_contiguous() && is_float(dtype), op,
               ": `h` must be a contiguous floating-point [rows, inner], got ", describe(h));
  return {h.size(0), h.size(1), dtype, sum_dtype(dtype)};
}

inline GateShape check_gru_forward(const char* op, const Tensor& gates_x, const Tensor& gates_h,
                                   const Tensor& h) {
  const GateShape s = check_gru(op, h);
  check_rows(op, h, "gates_x", gates_x, s.rows, 3 * s.inner, s.dtype);
  check_rows(op, h, "gates_h", gates_h, s.rows, 3 * s.inner, s.dtype);
  return s;
}

inline GateShape check_gru_backward(const char* op, const Tensor& grad, const Tensor& activated,
                                    const Tensor& h) {
  const GateShape s = check_gru(op, h);
  check_rows(op, h, "grad", grad, s.rows, s.inner, s.dtype);
  check_rows(op, h, "activated", activated, s.rows, 4 * s.inner, s.dtype);
  return s;
}

}  // namespace amstel
