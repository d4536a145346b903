// Normalized sparse-dense product, y = act(row_scale (A col_scale x + loops) + bias); torch-free.
// Its gradient is in spmm_grad.cuh.
//
// Data flow.  A tile of 4, 8, 16 or 32 lanes holds a row of y, a lane N features of it (16 bytes
// where F, strides and pointers allow); wider rows are cut into parts along grid.y, items of a
// batch along grid.z.  An edge costs 4 or 8 bytes of col once a part, what edge, weight and
// col_scale it has, and F * sizeof(T) bytes of x; a row costs two entries of crow, and its F *
// sizeof(T) bytes of y are written once, after scale, bias and ReLU: no buffer of E elements is
// read or written.  Each lane of a tile fetches one edge (column, coefficient), so that structure
// is read in coalesced runs, and those of the next round are on their way while the tile goes
// through these, four at a time: the lane that has an edge hands out the offset and the coefficient
// by shuffle, and four gathers are in flight.
//
// Balance without a plan.  csr_rows.cuh says how rows are shared out (the launch decides by
// features, rows and edges alone) and what becomes of hubs.  A row of more edges than a chunk of
// them would leave its block busy: where there may be such rows, a first kernel sums what lies of
// them in each chunk, a block a chunk, and the block of the row adds these sums in their order.
#pragma once

#include "cuda/kernels/csr_rows.cuh"

namespace amstel::cuda {

template <typename T>
struct SpmmArgs {
  Csr csr;
  const T* weight;  // like the scales and bias, may be null
  const Accumulate<T>*row_scale, *col_scale;
  const T *x, *bias;
  T* y;
  int64_t x_stride, x_batch_stride, y_stride, y_batch_stride;
  int64_t features;
  double self_loops;
  int64_t relu;
  unsigned long long* nan;  // set to 0 by a weight that is NaN; may be null
  Accumulate<T>* partial;   // [batch, chunks, 2, all features] of longer rows, or null
  int64_t chunk, chunks, partial_stride;  // edges of a chunk; numbers of a slot of `partial`

  // Where the sum of a long row's edges in chunk c is: a chunk holds the end of one such row and
  // the beginning of another at most.
  __device__ __forceinline__ int64_t slot(int64_t c, bool begins) const {
    return ((blockIdx.z * chunks + c) * 2 + begins) * partial_stride;
  }
};

// sum += of edges k, k + stride, ... < end of a tile, `k` being the calling lane's first.
template <int Tile, int N, typename T, typename S>
__device__ __forceinline__ void add_edges(const SpmmArgs<T> a, const T* x, bool has_features,
                                          int64_t k, int64_t end, int stride, S (&sum)[N]) {
  const int lane = static_cast<int>(threadIdx.x) % Tile;
  // Where there is no edge, the first column and no coefficient.
  const auto column = [=](int64_t k) { return k < end ? a.csr.index(a.csr.col, k) : int64_t{0}; };
  const auto coefficient = [=](int64_t k, int64_t j) {
    if (k >= end) return S(0);
    const S c = a.weight ? widen(a.weight[a.csr.edge_of(k)]) : S(1);
    if (a.nan && c != c) atomicMin(a.nan, 0ull);
    return a.col_scale ? c * a.col_scale[j] : c;
  };
  // The next round's edges on their way; eight short elements leave no registers for them.
  constexpr bool kAhead = sizeof(T) > 2;
  int64_t next = 0;
  S next_c = 0;
  if constexpr (kAhead) {
    next = column(k);
    next_c = coefficient(k, next);
  }
#pragma unroll 1
  for (; __any_sync(kWarp, k - lane < end); k += stride) {
    const int64_t j = kAhead ? next : column(k), offset = j * a.x_stride;
    const S c = kAhead ? next_c : coefficient(k, j);
    if constexpr (kAhead) {
      next = column(k + stride);
      next_c = coefficient(k + stride, next);
    }
    const int count = held_edges<Tile>(end, k, lane);
#pragma unroll 1
    for (int e = 0; e < Tile; e += kGroup) {
      if (e > 0 && !__any_sync(kWarp, e < count)) break;
      Vector<T, N> rows[kGroup];
      gather<Tile>(rows, x, has_features, offset, e, count);
#pragma unroll
      for (int u = 0; u < kGroup; ++u) {
        const S c_u = __shfl_sync(kWarp, c, e + u, Tile);
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += c_u * widen(rows[u][n]);
      }
    }
  }
}

// Block c sums what lies in chunk c of rows that are longer than a chunk.  Reads up to 256 entries
// of crow at a time, and of such a row what spmm_kernel would read; writes at most two slots of
// features.
template <typename T, int N, int Tile>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 4 : 3)
    spmm_chunk_kernel(const SpmmArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_SHARED(S, partial, kThreads * N);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t feature = int64_t{blockIdx.y} * (Tile * N) + thread % Tile * N;
  const bool has_features = feature < a.features;
  const int64_t edges = a.csr.index(a.csr.crow, a.csr.rows);
  const int64_t first = int64_t{blockIdx.x} * a.chunk;
  const int64_t past = first + a.chunk < edges ? first + a.chunk : edges;
  if (first >= edges) return;
#pragma unroll 1
  for (int begins = 0; begins < 2; ++begins) {
    const int64_t row = row_of_block(a.csr, begins ? past - 1 : first);
    const int64_t begin = a.csr.index(a.csr.crow, row), end = a.csr.index(a.csr.crow, row + 1);
    // The same for the whole block.
    if (end - begin <= a.chunk || (begin > first) != (begins == 1)) continue;
    S sum[N] = {};
    add_edges<Tile, N>(a, a.x + blockIdx.z * a.x_batch_stride + feature, has_features,
                       (begins ? begin : first) + thread, end < past ? end : past, kThreads, sum);
    sum_tiles<N, S>(partial, thread, Tile, sum);
    if (thread < Tile && has_features) {
#pragma unroll
      for (int n = 0; n < N; ++n) a.partial[a.slot(blockIdx.x, begins) + feature + n] = sum[n];
    }
  }
}

template <typename T, int N, int Tile, int Row>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 4 : 3)
    spmm_kernel(const SpmmArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_SHARED(S, partial, kThreads * N);
  const int lane = static_cast<int>(threadIdx.x) % Tile;
  const S self_loops = static_cast<S>(a.self_loops);
  const int64_t feature = int64_t{blockIdx.y} * (Tile * N) + lane * N;
  const bool has_features = feature < a.features;
  const T* x = a.x + blockIdx.z * a.x_batch_stride + feature;
  for_rows<Tile, Row>(a.csr, [=](const Share<Tile, Row>& share) {
    const bool writes = share.leads && has_features;
    S sum[N] = {};
    if (writes && self_loops != 0) {
      const S c = a.col_scale ? self_loops * a.col_scale[share.row()] : self_loops;
      const Vector<T, N> own = load_vector<N>(x + share.row() * a.x_stride);
#pragma unroll
      for (int n = 0; n < N; ++n) sum[n] = c * widen(own[n]);
    }
    int64_t begin = share.end;  // of a row whose chunks have been summed
    if (share.whole && a.partial) begin = a.csr.index(a.csr.crow, share.row());
    if (share.end - begin > a.chunk) {
      const int64_t last = (share.end - 1) / a.chunk;
      int64_t c = begin / a.chunk + threadIdx.x / Tile;
      for (; has_features && c <= last; c += kThreads / Tile) {
        const S* const found = a.partial + a.slot(c, begin > c * a.chunk) + feature;
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += found[n];
      }
    } else {
      add_edges<Tile, N>(a, x, has_features, share.begin + lane, share.end, share.stride(), sum);
    }
    meet(share, partial, sum);
    if (!writes) return;
    const S scale = a.row_scale ? a.row_scale[share.row()] : S(1);
    Vector<T, N> bias = {}, y;
    if (a.bias) bias = load_vector<N>(a.bias + feature);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const S value = sum[n] * scale + widen(bias[n]);
      y[n] = narrow<T>(a.relu && value <= 0 ? S(0) : value);  // NaN stays
    }
    store_row(a.y + blockIdx.z * a.y_batch_stride + share.row() * a.y_stride + feature, y);
  });
}

}  // namespace amstel::cuda
