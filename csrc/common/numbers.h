// Small functions of numbers that host, CPU kernels and CUDA kernels share. Always inlined: CPU
// kernels are compiled once an instruction set, and no copy of one may serve another.
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)
#define AMSTEL_HOST_DEVICE __host__ __device__
#define AMSTEL_EVERYWHERE __host__ __device__ __forceinline__
#else
#define AMSTEL_HOST_DEVICE
#define AMSTEL_EVERYWHERE inline __attribute__((always_inline))
#endif

namespace amstel {

AMSTEL_EVERYWHERE constexpr int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Where index i of a row of n lies when the row is mirrored at its ends, again and again, the
// outermost element repeated.
AMSTEL_EVERYWHERE constexpr int64_t mirrored(int64_t i, int64_t n) {
  if (i >= 0 && i < n) return i;
  const int64_t m = i % (2 * n), k = m < 0 ? m + 2 * n : m;
  return k < n ? k : 2 * n - 1 - k;
}

namespace roi {

// Of a tensor [items, channels, rows, columns]; rows and columns are bins where the items are
// boxes.
struct Strides {
  int64_t item, channel, row, col;
};

// Of a row of the table of bins (roi.h): the image; begin and end of the rows and of the columns of
// bins.
AMSTEL_EVERYWHERE constexpr int64_t table_width(int64_t ph, int64_t pw) {
  return 1 + 2 * ph + 2 * pw;
}

}  // namespace roi
}  // namespace amstel
