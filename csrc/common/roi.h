// The geometry of ROI pooling, the same on every device: from a box in pixels to the rows and
// columns of its bins, bit for bit as torchvision computes them. Plain functions of numbers.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "numbers.h"

namespace amstel::roi {

// Coordinates are scaled and divided in this arithmetic; float16 is float32 rounded after each
// step.
enum class Arithmetic { kDouble, kFloat, kHalf };

AMSTEL_HOST_DEVICE inline float round_to_half(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  const uint32_t sign = bits & 0x80000000u;
  uint32_t magnitude = bits ^ sign;
  if (magnitude < 0x38800000u) {  // subnormal: multiples of 2^-24, as the floats in [0.5, 1) are
    float m;
    memcpy(&m, &magnitude, sizeof(m));
    m = (m + 0.5f) - 0.5f;
    memcpy(&magnitude, &m, sizeof(m));
  } else if (magnitude < 0x7f800000u) {
    magnitude = (magnitude + 0xfff + ((magnitude >> 13) & 1)) & ~0x1fffu;
    if (magnitude >= 0x47800000u) magnitude = 0x7f800000u;
  }
  bits = magnitude | sign;
  memcpy(&v, &bits, sizeof(v));
  return v;
}

template <Arithmetic kArithmetic>
struct Number {
  using type = float;
};
template <>
struct Number<Arithmetic::kDouble> {
  using type = double;
};

template <Arithmetic kArithmetic, class C = typename Number<kArithmetic>::type>
AMSTEL_HOST_DEVICE inline C rounded(C v) {
  if constexpr (kArithmetic == Arithmetic::kHalf)
    return round_to_half(v);
  else
    return v;
}

// To the nearest integer, halves away from zero. Numbers beyond 2^52 stop there; NaN gives 0.
template <class C>
AMSTEL_HOST_DEVICE inline int64_t to_integer(C v) {
  constexpr C kEnd = C(int64_t{1} << 52);
  if (!(v > -kEnd)) return v <= -kEnd ? -(int64_t{1} << 52) : 0;
  if (v >= kEnd) return int64_t{1} << 52;
  // A function, since arithmetic on v could be contracted with the product that it is.
  if constexpr (sizeof(C) == sizeof(double))
    return static_cast<int64_t>(round(v));
  else
    return static_cast<int64_t>(roundf(v));
}

// floor and ceil of a number >= 0.
template <class C>
AMSTEL_HOST_DEVICE inline int64_t floor_integer(C v) {
  constexpr C kEnd = C(int64_t{1} << 53);
  return v < kEnd ? static_cast<int64_t>(v) : int64_t{1} << 53;
}
template <class C>
AMSTEL_HOST_DEVICE inline int64_t ceil_integer(C v) {
  const int64_t whole = floor_integer(v);
  return static_cast<C>(whole) < v ? whole + 1 : whole;
}

AMSTEL_HOST_DEVICE inline int32_t clipped(int64_t v, int64_t size) {
  return static_cast<int32_t>(v < 0 ? 0 : v > size ? size : v);
}

// The bins along one axis of `size` cells: begin[0 .. bins) and end[0 .. bins), `first` and `last`
// the coordinates of the box. A malformed box becomes one cell.
template <Arithmetic kArithmetic, class C = typename Number<kArithmetic>::type>
AMSTEL_HOST_DEVICE inline void bins_of(C first, C last, C scale, int64_t bins, int64_t size,
                                       int32_t* begin, int32_t* end) {
  const int64_t start = to_integer(rounded<kArithmetic>(first * scale));
  const int64_t stop = to_integer(rounded<kArithmetic>(last * scale));
  const int64_t length = stop - start + 1 > 1 ? stop - start + 1 : 1;
  const C bin = rounded<kArithmetic>(rounded<kArithmetic>(static_cast<C>(length)) /
                                     rounded<kArithmetic>(static_cast<C>(bins)));
  for (int64_t b = 0; b < bins; ++b) {
    const C low = rounded<kArithmetic>(rounded<kArithmetic>(static_cast<C>(b)) * bin);
    const C high = rounded<kArithmetic>(rounded<kArithmetic>(static_cast<C>(b + 1)) * bin);
    begin[b] = clipped(floor_integer(low) + start, size);
    end[b] = clipped(ceil_integer(high) + start, size);
  }
}

// A row of the table of bins (table_width numbers): the image, or -1 where the box is not valid (a
// coordinate that is not finite, an image that is not one of `images`); begin and end of the ph
// rows of bins; begin and end of the pw columns of bins.
template <Arithmetic kArithmetic, class C = typename Number<kArithmetic>::type>
AMSTEL_HOST_DEVICE inline void table_row(const C* box, C scale, int64_t images, int64_t height,
                                         int64_t width, int64_t ph, int64_t pw, int32_t* row) {
  bool valid = box[0] >= 0 && box[0] < static_cast<C>(images) &&
               static_cast<C>(static_cast<int64_t>(box[0])) == box[0];
  for (int i = 1; i < 5; ++i) valid = valid && box[i] - box[i] == 0;
  if (!valid) {
    row[0] = -1;
    for (int64_t i = 1; i < table_width(ph, pw); ++i) row[i] = 0;
    return;
  }
  row[0] = static_cast<int32_t>(box[0]);
  bins_of<kArithmetic>(box[2], box[4], scale, ph, height, row + 1, row + 1 + ph);
  bins_of<kArithmetic>(box[1], box[3], scale, pw, width, row + 1 + 2 * ph, row + 1 + 2 * ph + pw);
}

}  // namespace amstel::roi
