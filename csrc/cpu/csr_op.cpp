// Graph structure on the CPU: edge list to CSR, transpose, validation, sums over the edges of a
// row.
//
// Both sorts are stable counting sorts, O(edges + nodes), whose result does not depend on the
// number of threads: every thread counts its own run of edges, one prefix sum places them all.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <tuple>

#include "common/spmm_check.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace amstel::cpu {
namespace {

using Csr = std::tuple<Tensor, Tensor, Tensor>;

// Slots for the edges of each part and key: count, prefix, then take.
template <class I>
class Slots {
 public:
  // As many parts as threads, unless the counters would outgrow the edges.
  Slots(int64_t edges, int64_t keys)
      : parts_(std::max<int64_t>(
            1, std::min(threads_for(edges * 16), keys ? 4 * edges / keys : int64_t{1}))),
        edges_(edges),
        keys_(keys),
        next_(std::make_unique<I[]>(parts_ * keys)) {}
  int64_t parts() const { return parts_; }
  int64_t first(int64_t part) const { return edges_ * part / parts_; }
  void count(int64_t part, int64_t key) { ++next_[part * keys_ + key]; }
  I take(int64_t part, int64_t key) { return next_[part * keys_ + key]++; }
  void prefix(I* crow) {
    I sum = 0;
    for (int64_t key = 0; key < keys_; ++key) {
      crow[key] = sum;
      for (int64_t p = 0; p < parts_; ++p) {
        const I n = next_[p * keys_ + key];
        next_[p * keys_ + key] = sum;
        sum += n;
      }
    }
    crow[keys_] = sum;
  }

 private:
  int64_t parts_, edges_, keys_;
  std::unique_ptr<I[]> next_;
};

template <class I>
Csr empty_csr(const Tensor& like, int64_t rows, int64_t edges) {
  return {empty(like, {rows + 1}, index_type<I>), empty(like, {edges}, index_type<I>),
          empty(like, {edges}, index_type<I>)};
}

template <class In, class I>
Csr from_coo(const Tensor& row, const Tensor& col, int64_t num_rows, int64_t num_cols) {
  const int64_t edges = row.size(0);
  const In *rows = data<In>(row), *cols = data<In>(col);
  const auto inside = [&](int64_t k) {
    return rows[k] >= 0 && rows[k] < num_rows && cols[k] >= 0 && cols[k] < num_cols;
  };
  Slots<I> slots(edges, num_rows);
  std::unique_ptr<int64_t[]> bad(new int64_t[slots.parts()]);
  parallel_parts(slots.parts(), [&](int64_t p) {
    bad[p] = -1;
    for (int64_t k = slots.first(p); k < slots.first(p + 1); ++k) {
      if (!inside(k)) [[unlikely]] {
        bad[p] = k;
        return;
      }
      slots.count(p, rows[k]);
    }
  });
  for (int64_t p = 0; p < slots.parts(); ++p) {
    if (bad[p] < 0) continue;
    fail_edge(rows[bad[p]], cols[bad[p]], num_rows, num_cols, bad[p]);
  }
  Csr out = empty_csr<I>(row, num_rows, edges);
  auto& [crow, col_out, edge] = out;
  slots.prefix(mutable_data<I>(crow));
  I *to_col = mutable_data<I>(col_out), *to_edge = mutable_data<I>(edge);
  parallel_parts(slots.parts(), [&](int64_t p) {
    for (int64_t k = slots.first(p); k < slots.first(p + 1); ++k) {
      const I slot = slots.take(p, rows[k]);
      to_col[slot] = static_cast<I>(cols[k]);
      to_edge[slot] = static_cast<I>(k);
    }
  });
  return out;
}

template <class I>
Csr transpose(const Tensor& crow, const Tensor& col, const OptionalTensor& edge, int64_t num_cols) {
  const int64_t rows = crow.size(0) - 1, edges = col.size(0);
  const I *start = data<I>(crow), *cols = data<I>(col), *edges_in = data<I>(edge);
  Slots<I> slots(edges, num_cols);
  parallel_parts(slots.parts(), [&](int64_t p) {
    for (int64_t k = slots.first(p); k < slots.first(p + 1); ++k) slots.count(p, cols[k]);
  });
  Csr out = empty_csr<I>(crow, num_cols, edges);
  auto& [crow_t, col_t, edge_t] = out;
  slots.prefix(mutable_data<I>(crow_t));
  I *to_col = mutable_data<I>(col_t), *to_edge = mutable_data<I>(edge_t);
  parallel_parts(slots.parts(), [&](int64_t p) {
    const int64_t begin = slots.first(p), end = slots.first(p + 1);
    int64_t i = std::upper_bound(start, start + rows + 1, static_cast<I>(begin)) - start - 1;
    for (int64_t k = begin; k < end; ++k) {
      while (start[i + 1] <= k) ++i;
      const I slot = slots.take(p, cols[k]);
      to_col[slot] = static_cast<I>(i);
      to_edge[slot] = edges_in ? edges_in[k] : static_cast<I>(k);
    }
  });
  return out;
}

}  // namespace

Csr csr_from_coo(Tensor row, Tensor col, int64_t num_rows, int64_t num_cols,
                 OptionalTensor weight) {
  const char* op = "csr_from_coo";
  check_coo(op, row, col, num_rows, num_cols, weight);
  if (weight) check_no_nan(op, *weight);
  Csr out;
  with_index(op, "row", row, [&](auto type) {
    using In = typename decltype(type)::type;
    out = fits_int32(row.size(0), num_rows, num_cols)
              ? from_coo<In, int32_t>(row, col, num_rows, num_cols)
              : from_coo<In, int64_t>(row, col, num_rows, num_cols);
  });
  return out;
}

Csr csr_transpose(Tensor crow, Tensor col, OptionalTensor edge, int64_t num_cols) {
  check_csr("csr_transpose", crow, col, edge);
  check_edges("csr_transpose", crow, col);
  Csr out;
  with_index("csr_transpose", "crow", crow, [&](auto type) {
    out = transpose<typename decltype(type)::type>(crow, col, edge, num_cols);
  });
  return out;
}

void csr_check(Tensor crow, Tensor col, OptionalTensor weight, int64_t num_cols) {
  const char* op = "csr_check";
  check_csr(op, crow, col, std::nullopt);
  check_weight(op, crow, weight, col.size(0));
  with_index(op, "crow", crow, [&](auto type) {
    using I = typename decltype(type)::type;
    const int64_t rows = crow.size(0) - 1, edges = col.size(0);
    const I *start = data<I>(crow), *cols = data<I>(col);
    check_indptr_start(start[0]);
    for (int64_t i = 0; i < rows; ++i)
      if (start[i] > start[i + 1]) [[unlikely]]
        fail_indptr(start[i], start[i + 1], i);
    check_indptr_end(start[rows], edges);
    for (int64_t k = 0; k < edges; ++k)
      if (cols[k] < 0 || cols[k] >= num_cols) [[unlikely]]
        fail_source(cols[k], num_cols, k);
  });
  if (weight) check_no_nan(op, *weight);
}

Tensor edge_sum(Tensor crow, OptionalTensor edge, Tensor a, OptionalTensor b) {
  const char* op = "edge_sum";
  const ScalarType sum = check_edge_sum(op, crow, edge, a, b);
  check_edges(op, crow, a);
  const int64_t rows = crow.size(0) - 1;
  Tensor out = empty(crow, {rows}, sum);
  with_index(op, "crow", crow, [&](auto index) {
    using I = typename decltype(index)::type;
    with_float(op, "a", a, [&](auto type) {
      using T = typename decltype(type)::type;
      using S = std::conditional_t<std::is_same_v<T, double>, double, float>;
      const I *start = data<I>(crow), *slot = data<I>(edge);
      const T* first = data<T>(a);
      const S* second = data<S>(b);
      S* result = mutable_data<S>(out);
      parallel_rows(start, rows, 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          S total = 0;
          for (int64_t k = start[i]; k < start[i + 1]; ++k) {
            const int64_t e = slot ? static_cast<int64_t>(slot[k]) : k;
            total += second ? static_cast<S>(first[e]) * second[e] : static_cast<S>(first[e]);
          }
          result[i] = total;
        }
      });
    });
  });
  return out;
}

Tensor edge_add(Tensor crow, Tensor col, OptionalTensor edge, Tensor value, OptionalTensor row_term,
                OptionalTensor col_term, ScalarType dtype) {
  const char* op = "edge_add";
  check_edge_add(op, crow, col, edge, value, row_term, col_term, dtype);
  check_edges(op, crow, col);
  const int64_t rows = crow.size(0) - 1;
  Tensor out = empty(value, {col.size(0)}, dtype);
  with_index(op, "crow", crow, [&](auto index) {
    using I = typename decltype(index)::type;
    with_float(op, "value", out, [&](auto type) {
      using T = typename decltype(type)::type;
      using S = std::conditional_t<std::is_same_v<T, double>, double, float>;
      const I *start = data<I>(crow), *cols = data<I>(col), *slot = data<I>(edge);
      const S *values = data<S>(value), *by_row = data<S>(row_term), *by_col = data<S>(col_term);
      T* result = mutable_data<T>(out);
      parallel_rows(start, rows, 12, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          for (int64_t k = start[i]; k < start[i + 1]; ++k) {
            const int64_t e = slot ? static_cast<int64_t>(slot[k]) : k;
            result[e] = static_cast<T>(values[e] + (by_row ? by_row[i] : S(0)) +
                                       (by_col ? by_col[cols[k]] : S(0)));
          }
      });
    });
  });
  return out;
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("csr_from_coo", TORCH_BOX(&amstel::cpu::csr_from_coo));
  m.impl("csr_transpose", TORCH_BOX(&amstel::cpu::csr_transpose));
  m.impl("csr_check", TORCH_BOX(&amstel::cpu::csr_check));
  m.impl("edge_sum", TORCH_BOX(&amstel::cpu::edge_sum));
  m.impl("edge_add", TORCH_BOX(&amstel::cpu::edge_add));
}
