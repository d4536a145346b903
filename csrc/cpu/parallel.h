// Threads over the rows of a CSR matrix, balanced by edges.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace amstel::cpu {

// Below this many bytes of work a second thread costs more than it brings.
constexpr int64_t kWorkPerThread = 1 << 18;

inline int64_t threads_for(int64_t work) {
  if (work < 2 * kWorkPerThread) return 1;
  const int64_t threads = torch::stable::get_num_threads();
  return threads < work / kWorkPerThread ? threads : work / kWorkPerThread;
}

// f(part) for part in [0, parts), a thread each.
template <class F>
void parallel_parts(int64_t parts, const F& f) {
  if (parts <= 1) return f(int64_t{0});
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) f(p);
  });
}

// First row of part `part` of `parts`, where a row costs its edges and `row_cost` of them more.
template <class I>
int64_t first_row(const I* crow, int64_t rows, int64_t part, int64_t parts, int64_t row_cost) {
  const int64_t total = crow[rows] + rows * row_cost;
  const int64_t target = static_cast<int64_t>(static_cast<double>(total) * part / parts);
  int64_t low = 0, high = rows;
  if (part == parts) return rows;
  while (low < high) {
    const int64_t mid = (low + high) / 2;
    if (crow[mid] + mid * row_cost < target)
      low = mid + 1;
    else
      high = mid;
  }
  return low;
}

// f(row_begin, row_end) on every thread; `edge_work` is the bytes that one edge moves.
template <class I, class F>
void parallel_rows(const I* crow, int64_t rows, int64_t edge_work, const F& f) {
  constexpr int64_t kRowCost = 2;
  const int64_t parts = threads_for((crow[rows] + rows * kRowCost) * edge_work);
  parallel_parts(parts, [&](int64_t p) {
    f(first_row(crow, rows, p, parts, kRowCost), first_row(crow, rows, p + 1, parts, kRowCost));
  });
}

}  // namespace amstel::cpu
