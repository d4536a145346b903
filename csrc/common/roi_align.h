// The geometry of ROI align along one axis, the same on every device: from a box in pixels to the
// samples of its bins, bit for bit as torchvision computes them. Plain functions of numbers.
#pragma once
#include <math.h>
#include <stdint.h>

#include "numbers.h"
#include "roi.h"

namespace amstel::roi {

// A product that no compiler makes part of an fma, which would round once where the CPU rounds
// twice.
template <class C>
AMSTEL_HOST_DEVICE inline C product(C a, C b) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(C) == sizeof(double))
    return __dmul_rn(a, b);
  else
    return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// A box along one axis, in cells.
template <class C>
struct Axis {
  C start, bin;
  int64_t bins, grid;  // samples of a bin
};

template <class C>
AMSTEL_HOST_DEVICE inline Axis<C> axis_of(C first, C last, C scale, int64_t bins, int64_t sampling,
                                          bool aligned) {
  constexpr C kMost = C(int64_t{1} << 30);
  const C offset = aligned ? C(0.5) : C(0);
  const C start = product(first, scale) - offset;
  C length = product(last, scale) - offset - start;
  if (!aligned && length < C(1)) length = C(1);
  const C bin = length / static_cast<C>(bins);
  const C wanted = ceil(bin);
  int64_t grid = sampling > 0 ? sampling : wanted < kMost ? static_cast<int64_t>(wanted) : 1 << 30;
  return {start, bin, bins, grid > 0 ? grid : 0};
}

// The samples [begin, end) of a bin of which none outside can lie in a map of `size` cells; what is
// far outside is not walked through.
template <class C>
AMSTEL_HOST_DEVICE inline void near_samples(const Axis<C>& a, int64_t b, int64_t size,
                                            int64_t* begin, int64_t* end) {
  *begin = 0, *end = a.grid;
  if (a.grid < 64) return;
  const double step = static_cast<double>(a.bin) / static_cast<double>(a.grid);
  if (!(step > 0)) return;
  const double first = static_cast<double>(a.start) + static_cast<double>(b) * a.bin;
  // Room for rounding: coordinates beside the map are as exact as their distance allows.
  const double room = 4 + fabs(first) * 1e-5 / step;
  const double low = (-1 - first) / step - room, high = (size - first) / step + room;
  if (low > 0) *begin = low < static_cast<double>(a.grid) ? static_cast<int64_t>(low) : a.grid;
  if (high < static_cast<double>(a.grid)) *end = high > 0 ? static_cast<int64_t>(high) : 0;
}

// Two cells and the weight of the second; false where the sample is outside.
template <class C>
AMSTEL_HOST_DEVICE inline bool sample_of(const Axis<C>& a, int64_t b, int64_t i, int64_t size,
                                         int32_t* low, int32_t* high, C* of_high) {
  C at = a.start + product(static_cast<C>(b), a.bin) +
         product(static_cast<C>(i) + C(0.5), a.bin) / static_cast<C>(a.grid);
  if (!(at >= C(-1)) || at > static_cast<C>(size)) return false;
  if (at <= C(0)) at = C(0);
  *low = static_cast<int32_t>(at);
  if (*low >= size - 1) {
    *low = *high = static_cast<int32_t>(size - 1);
    at = static_cast<C>(*low);
  } else {
    *high = *low + 1;
  }
  *of_high = at - static_cast<C>(*low);
  return true;
}

// The bins of position-sensitive pooling along an axis, begins and then ends, as roi_pool has them,
// but the last cell of the map is left out, as torchvision leaves it out.
template <class C>
AMSTEL_HOST_DEVICE inline void ps_bins(C first, C last, C scale, int64_t bins, int64_t size,
                                       int32_t* begin) {
  const int64_t start = to_integer(product(first, scale)), stop = to_integer(product(last, scale));
  const int64_t cells = size > 1 ? size - 1 : 0, length = stop - start > 1 ? stop - start : 1;
  const C bin = static_cast<C>(length) / static_cast<C>(bins);
  for (int64_t b = 0; b < bins; ++b) {
    const C low = product(static_cast<C>(b), bin), high = product(static_cast<C>(b + 1), bin);
    begin[b] = clipped(floor_integer(low) + start, cells);
    begin[bins + b] = clipped(ceil_integer(high) + start, cells);
  }
}

}  // namespace amstel::roi
