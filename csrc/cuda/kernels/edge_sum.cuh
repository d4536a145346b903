// Sums of edges over the rows of a CSR matrix, and terms of rows and columns added to edges;
// torch-free.
//
// Data flow.  An edge costs 4 or 8 bytes of `edge` where there is one, the bytes of each value that
// it has, a and b or value and, gathered, col_term with its column, and for edge_add those of its
// result; a row costs two entries of crow and 4 or 8 bytes of its sum or term.  No features: eight
// lanes own a row, neighboring ones take neighboring edges, four (two with terms) on their way at a
// time, and hubs are done as csr_rows.cuh says.
#pragma once

#include "cuda/kernels/csr_rows.cuh"

namespace amstel::cuda {

constexpr int kEdgeTile = 8;  // lanes a row

// S is spelled as a parameter because compilers disagree on how to mangle Accumulate<T> in a
// signature.

// out[i] = sum_k a[edge[k]] * b[edge[k]]
template <typename T, typename S = Accumulate<T>>
__global__ void __launch_bounds__(kThreads, resident(6))
    edge_sum_kernel(const Csr csr, const T* __restrict__ a, const S* __restrict__ b,
                    S* __restrict__ out) {
  AMSTEL_SHARED(S, partial, kThreads);
  const int lane = static_cast<int>(threadIdx.x) % kEdgeTile;
  for_rows<kEdgeTile, kEdgeTile>(csr, [&](const Share<kEdgeTile, kEdgeTile>& share) {
    S sum[1] = {};
#pragma unroll 4
    for (int64_t k = share.begin + lane; k < share.end; k += share.stride()) {
      const int64_t edge = csr.edge_of(k);
      sum[0] += b ? widen(a[edge]) * b[edge] : widen(a[edge]);
    }
    if (share.whole) sum_tiles<1, S>(partial, threadIdx.x, kEdgeTile, sum);
    const S total = tile_sum<kEdgeTile>(sum[0]);
    if (share.leads && lane == 0) out[share.row()] = total;
  });
}

// out[edge[k]] = value[edge[k]] + row_term[i] + col_term[col[k]]
template <typename T, typename S = Accumulate<T>>
__global__ void __launch_bounds__(kThreads, resident(6))
    edge_add_kernel(const Csr csr, const S* __restrict__ value, const S* __restrict__ row_term,
                    const S* __restrict__ col_term, T* __restrict__ out) {
  const int lane = static_cast<int>(threadIdx.x) % kEdgeTile;
  for_rows<kEdgeTile, kEdgeTile>(csr, [&](const Share<kEdgeTile, kEdgeTile>& share) {
    const S term = share.works && row_term ? row_term[share.row()] : S(0);
#pragma unroll 2
    for (int64_t k = share.begin + lane; k < share.end; k += share.stride()) {
      const int64_t edge = csr.edge_of(k);
      const S other = col_term ? col_term[csr.index(csr.col, k)] : S(0);
      out[edge] = narrow<T>(value[edge] + term + other);
    }
  });
}

}  // namespace amstel::cuda
