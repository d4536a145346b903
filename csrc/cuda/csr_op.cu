// Graph structure on CUDA: check, allocate, launch.  The kernels are in kernels/csr.cuh, the sort
// in sort.cuh, the meaning of the arguments in library.cpp.
//
// The same results and errors as csrc/cpu/csr_op.cpp.  An error names the first bad position, so
// these operators look at device memory and wait for it, once, after all has been launched: none of
// them can be captured in a CUDA graph.  Keys out of range do no harm until then.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "common/csr_check.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/csr.cuh"
#include "cuda/sort.cuh"

namespace amstel::cuda {
namespace {

using Arrays = std::tuple<Tensor, Tensor, Tensor>;  // crow, col, edge

// What is found wrong, on the device; nothing so far.
Tensor no_faults(const Tensor& like, cudaStream_t stream) {
  Tensor t = empty(like, {sizeof(CsrFaults)}, ScalarType::Byte);
  cudaMemsetAsync(t.mutable_data_ptr(), 0xff, sizeof(CsrFaults), stream);
  return t;
}

void look_for_nan(const char* op, cudaStream_t stream, const OptionalTensor& weight,
                  CsrFaults* faults) {
  if (!weight || weight->numel() == 0) return;
  with_float(weight->scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    AMSTEL_LAUNCH((first_nan_kernel<T>), blocks(op, divide_up(weight->numel(), kThreads)), kThreads,
                  0, stream, data<T>(weight), weight->numel(), faults);
    check_launch(op);
  });
}

template <class I>
Arrays empty_arrays(const Tensor& like, int64_t rows, int64_t edges) {
  return {empty(like, {rows + 1}, index_type<I>), empty(like, {edges}, index_type<I>),
          empty(like, {edges}, index_type<I>)};
}

// Sorts slots by their keys in [0, rows) and fills the arrays: `from` becomes col, and edge, or
// else number, the position 0, 1, ... of each, becomes edge.
template <class In, class I>
void sort_and_fill(const char* op, cudaStream_t stream, const I* key, const I* number,
                   const In* from, const I* edge, const Arrays& out) {
  const auto& [crow, col_out, edge_out] = out;
  const int64_t rows = crow.size(0) - 1, edges = col_out.size(0);
  const Tensor sorted_key = empty(crow, {edges}, index_type<I>);
  const Tensor sorted_number = edge ? empty(crow, {edges}, index_type<I>) : edge_out;
  if (edges > 0)
    sort_pairs<I>(op, crow, stream, key, mutable_data<I>(sorted_key), number,
                  mutable_data<I>(sorted_number), edges, rows);
  AMSTEL_LAUNCH(
      (csr_from_sorted_kernel<In, I>), blocks(op, divide_up(std::max(edges, rows + 1), kThreads)),
      kThreads, 0, stream, data<I>(sorted_key), data<I>(sorted_number), from, edge, edges, rows,
      mutable_data<I>(crow), mutable_data<I>(col_out), edge ? mutable_data<I>(edge_out) : nullptr);
  check_launch(op);
}

template <class In, class I>
Arrays from_coo(const char* op, const Tensor& row, const Tensor& col, int64_t num_rows,
                int64_t num_cols, const OptionalTensor& weight) {
  const int64_t edges = row.size(0);
  const CurrentStream stream(row);
  const Tensor noted = no_faults(row, stream);
  auto* const faults = mutable_data<CsrFaults>(noted);
  look_for_nan(op, stream, weight, faults);
  const Tensor key = empty(row, {edges}, index_type<I>),
               number = empty(row, {edges}, index_type<I>);
  if (edges > 0) {
    AMSTEL_LAUNCH((coo_keys_kernel<In, I>), blocks(op, divide_up(edges, kThreads)), kThreads, 0,
                  stream, data<In>(row), data<In>(col), edges, num_rows, num_cols,
                  mutable_data<I>(key), mutable_data<I>(number), faults);
    check_launch(op);
  }
  Arrays out = empty_arrays<I>(row, num_rows, edges);
  sort_and_fill<In, I>(op, stream, data<I>(key), data<I>(number), data<In>(col), nullptr, out);
  const CsrFaults found = to_host(op, stream, faults);
  if (found.nan != kNowhere) fail_nan(op, static_cast<int64_t>(found.nan));
  if (found.edge != kNowhere) {
    const int64_t k = static_cast<int64_t>(found.edge);
    fail_edge(to_host(op, stream, data<In>(row) + k), to_host(op, stream, data<In>(col) + k),
              num_rows, num_cols, k);
  }
  return out;
}

template <class I>
Arrays transpose(const char* op, const Tensor& crow, const Tensor& col, const OptionalTensor& edge,
                 int64_t num_cols) {
  const int64_t rows = crow.size(0) - 1, edges = col.size(0);
  const CurrentStream stream(crow);
  check_end(op, to_host(op, stream, data<I>(crow) + rows), edges);
  const Tensor row = empty(crow, {edges}, index_type<I>);
  const Tensor number = empty(crow, {edges}, index_type<I>);
  if (edges > 0) {
    const Csr csr{data<I>(crow), nullptr, nullptr, rows, sizeof(I) == 8};
    AMSTEL_LAUNCH((csr_keys_kernel<I>), blocks(op, divide_up(edges, kThreads)), kThreads, 0, stream,
                  csr, edges, mutable_data<I>(row), mutable_data<I>(number));
    check_launch(op);
  }
  Arrays out = empty_arrays<I>(crow, num_cols, edges);
  sort_and_fill<I, I>(op, stream, data<I>(col), data<I>(number), data<I>(row), data<I>(edge), out);
  return out;
}

}  // namespace

Arrays csr_from_coo(Tensor row, Tensor col, int64_t num_rows, int64_t num_cols,
                    OptionalTensor weight) {
  const char* op = "csr_from_coo";
  check_coo(op, row, col, num_rows, num_cols, weight);
  Arrays out;
  with_index(row.scalar_type(), [&](auto type) {
    using In = typename decltype(type)::type;
    out = fits_int32(row.size(0), num_rows, num_cols)
              ? from_coo<In, int32_t>(op, row, col, num_rows, num_cols, weight)
              : from_coo<In, int64_t>(op, row, col, num_rows, num_cols, weight);
  });
  return out;
}

Arrays csr_transpose(Tensor crow, Tensor col, OptionalTensor edge, int64_t num_cols) {
  const char* op = "csr_transpose";
  check_csr(op, crow, col, edge);
  Arrays out;
  with_index(crow.scalar_type(), [&](auto type) {
    out = transpose<typename decltype(type)::type>(op, crow, col, edge, num_cols);
  });
  return out;
}

void csr_check(Tensor crow, Tensor col, OptionalTensor weight, int64_t num_cols) {
  const char* op = "csr_check";
  check_csr(op, crow, col, std::nullopt);
  const int64_t rows = crow.size(0) - 1, edges = col.size(0);
  check_weight(op, crow, weight, edges);
  const CurrentStream stream(crow);
  const Tensor noted = no_faults(crow, stream);
  auto* const faults = mutable_data<CsrFaults>(noted);
  look_for_nan(op, stream, weight, faults);
  with_index(crow.scalar_type(), [&](auto type) {
    using I = typename decltype(type)::type;
    const I *start = data<I>(crow), *cols = data<I>(col);
    AMSTEL_LAUNCH((csr_check_kernel<I>), blocks(op, divide_up(std::max(edges, rows + 1), kThreads)),
                  kThreads, 0, stream, start, cols, rows, edges, num_cols, faults);
    check_launch(op);
    const CsrFaults found = to_host(op, stream, faults);
    check_indptr_start(found.start);
    if (found.row != kNowhere) {
      const int64_t i = static_cast<int64_t>(found.row);
      fail_indptr(to_host(op, stream, start + i), to_host(op, stream, start + i + 1), i);
    }
    check_indptr_end(found.end, edges);
    if (found.edge != kNowhere) {
      const int64_t k = static_cast<int64_t>(found.edge);
      fail_source(to_host(op, stream, cols + k), num_cols, k);
    }
    if (found.nan != kNowhere) fail_nan(op, static_cast<int64_t>(found.nan));
  });
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("csr_from_coo", TORCH_BOX(&amstel::cuda::csr_from_coo));
  m.impl("csr_transpose", TORCH_BOX(&amstel::cuda::csr_transpose));
  m.impl("csr_check", TORCH_BOX(&amstel::cuda::csr_check));
}
