// Graph structure: edge list to CSR, transpose, validation; torch-free.  The stable sort in between
// is that of cuda/sort.cuh.
//
// Data flow, with i bytes an index of the result (4, or 8 from 2^31 rows, columns or edges on) and
// s an index that was given.  Before the sort, coo_keys_kernel reads row and col of an edge and
// writes its key, the row, and its number: 2 s + 2 i bytes.  For a transpose the columns are the
// keys as they lie, and csr_keys_kernel writes row and number of a slot: 2 i bytes, and a search
// for the row in crow, in which the lanes of a warp go the same way.  After it,
// csr_from_sorted_kernel reads the number of the edge that has come to a slot, gathers what belongs
// there (a sector of 32 bytes, from the L2 where E s bytes fit) and writes it: 2 i + 32 bytes, for
// a transpose of a list in another order 3 i + 64; the start of a row is searched among the sorted
// keys, log2(E) loads one after the other, whatever gaps the keys have.  csr_check_kernel and
// first_nan_kernel read what they check once and write nothing.
//
// A thread has an edge, and a row where it looks at rows.  What is wrong is noted by its position,
// the smallest by atomicMin, so that errors do not depend on the order of the threads either.
#pragma once

#include "cuda/kernels/csr_rows.cuh"

namespace amstel::cuda {

// Positions of what is wrong, kNowhere where nothing is, and the ends of crow.
constexpr unsigned long long kNowhere = ~0ull;
struct CsrFaults {
  unsigned long long edge;  // the first with an index out of range
  unsigned long long nan;   // the first weight that is NaN
  unsigned long long row;   // the first that ends before it begins
  int64_t start, end;       // the first and the last entry of crow
};

__device__ __forceinline__ int64_t global_thread() {
  return int64_t{blockIdx.x} * kThreads + threadIdx.x;
}

template <typename In, typename I>
__global__ void __launch_bounds__(kThreads)
    coo_keys_kernel(const In* __restrict__ row, const In* __restrict__ col, int64_t edges,
                    int64_t num_rows, int64_t num_cols, I* __restrict__ key, I* __restrict__ number,
                    CsrFaults* faults) {
  const int64_t k = global_thread();
  if (k >= edges) return;
  const int64_t i = row[k], j = col[k];
  if (i < 0 || i >= num_rows || j < 0 || j >= num_cols) {
    atomicMin(&faults->edge, static_cast<unsigned long long>(k));
  }
  key[k] = static_cast<I>(i);
  number[k] = static_cast<I>(k);
}

template <typename I>
__global__ void __launch_bounds__(kThreads)
    csr_keys_kernel(const Csr csr, int64_t edges, I* __restrict__ row, I* __restrict__ number) {
  const int64_t k = global_thread();
  if (k >= edges) return;
  row[k] = static_cast<I>(row_of(csr, k));
  number[k] = static_cast<I>(k);
}

// Of the sorted keys: crow[i] = how many are below i, of all i <= rows.  Of the numbers that were
// sorted with them: to[k] = from[number[k]], and edge_to[k] = edge[number[k]] where there is an
// edge.
template <typename In, typename I>
__global__ void __launch_bounds__(kThreads)
    csr_from_sorted_kernel(const I* __restrict__ key, const I* __restrict__ number,
                           const In* __restrict__ from, const I* __restrict__ edge, int64_t edges,
                           int64_t rows, I* __restrict__ crow, I* __restrict__ to,
                           I* __restrict__ edge_to) {
  const int64_t k = global_thread();
  if (k < edges) {
    const int64_t n = number[k];
    to[k] = static_cast<I>(from[n]);
    if (edge) edge_to[k] = edge[n];
  }
  if (k > rows) return;
  int64_t below = 0, above = edges;
  while (below < above) {
    const int64_t middle = (below + above) / 2;
    if (key[middle] < k) {
      below = middle + 1;
    } else {
      above = middle;
    }
  }
  crow[k] = static_cast<I>(below);
}

template <typename I>
__global__ void __launch_bounds__(kThreads)
    csr_check_kernel(const I* __restrict__ crow, const I* __restrict__ col, int64_t rows,
                     int64_t edges, int64_t cols, CsrFaults* faults) {
  const int64_t k = global_thread();
  if (k == 0) {
    faults->start = crow[0];
    faults->end = crow[rows];
  }
  if (k < rows && crow[k] > crow[k + 1]) {
    atomicMin(&faults->row, static_cast<unsigned long long>(k));
  }
  if (k < edges && (col[k] < 0 || col[k] >= cols)) {
    atomicMin(&faults->edge, static_cast<unsigned long long>(k));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    first_nan_kernel(const T* __restrict__ weight, int64_t edges, CsrFaults* faults) {
  const int64_t k = global_thread();
  if (k >= edges) return;
  const Accumulate<T> w = widen(weight[k]);
  if (w != w) atomicMin(&faults->nan, static_cast<unsigned long long>(k));
}

}  // namespace amstel::cuda
