// The checks of the ConvGRU gates, the same on every device.
#pragma once
#include "common/conv_lstm_check.h"
#include "common/stable.h"

namespace amstel {

inline GateShape check_gru_forward(const char* op, const Tensor& gates_x, const Tensor& gates_h,
                                   const Tensor& h) {
  const GateShape s = gate_shape(op, "gates_x", gates_x, 3);
  check_cells(op, gates_x, "gates_h", gates_h, s.rows, 3 * s.inner, s.dtype);
  check_cells(op, gates_x, "h", h, s.rows, s.inner, s.dtype);
  return s;
}

inline GateShape check_gru_backward(const char* op, const Tensor& grad, const Tensor& activated,
                                    const Tensor& h) {
  const GateShape s = gate_shape(op, "activated", activated, 4);
  check_cells(op, activated, "grad", grad, s.rows, s.inner, s.dtype);
  check_cells(op, activated, "h", h, s.rows, s.inner, s.dtype);
  return s;
}

// `count` numbers a cell, as rows or as a map like h, or none.
inline Tensor empty_cells(const Tensor& h, const GateShape& s, int64_t count, bool any = true) {
  if (h.dim() == 2) return empty(h, {any ? s.rows : 0, count * s.inner});
  const bool channels_last = s.rows != h.size(0);
  return empty(h, {any ? h.size(0) : 0, count * h.size(1), h.size(2), h.size(3)}, s.dtype,
               channels_last);
}

}  // namespace amstel
