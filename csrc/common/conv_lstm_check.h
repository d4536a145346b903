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

// Whether the memory of [N, C, H, W] is that of [N, H, W, C].
inline bool is_channels_last(const Tensor& t) {
  if (t.dim() != 4) return false;
  int64_t step = 1;
  for (const int d : {1, 3, 2, 0}) {
    if (t.size(d) != 1 && t.stride(d) != step) return false;
    step *= t.size(d);
  }
  return true;
}

// Whether the memory is that of [rows, width]: of a map [N, C, H, W], N images or, with channels
// last, its pixels.
inline bool has_rows(const Tensor& t, int64_t rows, int64_t width) {
  if (t.dim() == 2) return t.size(0) == rows && t.size(1) == width && t.is_contiguous();
  if (t.dim() != 4 || t.numel() != rows * width) return false;
  return (t.size(0) == rows && t.is_contiguous()) || (t.size(1) == width && is_channels_last(t));
}

// Rows of `dtype` on the device of `like`, as a map where `like` is one.
inline void check_cells(const char* op, const Tensor& like, const char* name, const Tensor& t,
                        int64_t rows, int64_t width, ScalarType dtype) {
  AMSTEL_CHECK(t.dim() == like.dim() && has_rows(t, rows, width) && t.scalar_type() == dtype, op,
               ": `", name, "` must be a contiguous ", torch::headeronly::toString(dtype), " [",
               rows, ", ", width, "] or a map with that memory, got ", describe(t));
  check_same_device(op, like, name, t);
}

// A contiguous [rows, width] of `dtype` on the device of `like`.
inline void check_rows(const char* op, const Tensor& like, const char* name, const Tensor& t,
                       int64_t rows, int64_t width, ScalarType dtype) {
  AMSTEL_CHECK(t.dim() == 2 && t.size(0) == rows && t.size(1) == width &&
                   t.scalar_type() == dtype && t.is_contiguous(),
               op, ": `", name, "` must be a contiguous ", torch::headeronly::toString(dtype), " [",
               rows, ", ", width, "], got ", describe(t));
  check_same_device(op, like, name, t);
}

// The rows of `gates`, `count` of which a cell has.
inline GateShape gate_shape(const char* op, const char* name, const Tensor& gates, int count) {
  const bool map = gates.dim() == 4, images = (map || gates.dim() == 2) && gates.is_contiguous();
  AMSTEL_CHECK((images || is_channels_last(gates)) && gates.size(1) % count == 0 &&
                   is_float(gates.scalar_type()),
               op, ": `", name, "` must be a contiguous floating-point [rows, ", count,
               " * inner] or [N, ", count, "C, H, W], got ", describe(gates));
  const int64_t channels = gates.size(1) / count, pixels = map ? gates.size(2) * gates.size(3) : 1;
  const ScalarType dtype = gates.scalar_type();
  return {images ? gates.size(0) : gates.size(0) * pixels, images ? channels * pixels : channels,
          dtype, sum_dtype(dtype), dtype};
}

inline GateShape check_gates(const char* op, const char* name, const Tensor& gates, const Tensor& c,
                             const OptionalTensor& peephole) {
  GateShape s = gate_shape(op, name, gates, 4);
  if (c.scalar_type() != s.dtype) s.state = s.sum;
  check_cells(op, gates, "c", c, s.rows, s.inner, s.state);
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
  if (!apart) check_cells(op, gates, "h", h, s.rows, s.inner, s.dtype);
  check_same_device(op, gates, "h", h);
  check_cells(op, gates, "c_out", c_out, s.rows, s.inner, s.state);
  if (activated) check_cells(op, gates, "activated", *activated, s.rows, 4 * s.inner, s.dtype);
  return s;
}

inline GateShape check_backward(const char* op, const Tensor& activated, const Tensor& c,
                                const Tensor& c_out, const OptionalTensor& peephole,
                                const OptionalTensor& grad_h, const OptionalTensor& grad_h_more,
                                const OptionalTensor& grad_c, const Tensor& grad_c_out,
                                const Tensor& grad_gates) {
  const GateShape s = check_gates(op, "activated", activated, c, peephole);
  check_cells(op, c, "c_out", c_out, s.rows, s.inner, s.state);
  if (grad_h) check_cells(op, c, "grad_h", *grad_h, s.rows, s.inner, s.dtype);
  if (grad_h_more) check_cells(op, c, "grad_h_more", *grad_h_more, s.rows, s.inner, s.dtype);
  if (grad_c) check_cells(op, c, "grad_c", *grad_c, s.rows, s.inner, s.state);
  check_cells(op, c, "grad_c_out", grad_c_out, s.rows, s.inner, s.state);
  check_cells(op, c, "grad_gates", grad_gates, s.rows, 4 * s.inner, s.dtype);
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
