// Normalized sparse-dense product, its gradient, and the small sums around them; torch-free.
//
// Data flow of spmm.  A tile of 4, 8, 16 or 32 lanes holds a row of y, a lane N features of it (16
// bytes where F, strides and pointers allow); wider rows are cut into parts along grid.y, items of
// a batch along grid.z.  An edge costs 4 or 8 bytes of col once a part, what edge, weight and
// col_scale it has, and F * sizeof(T) bytes of x; a row costs two entries of crow, and its F *
// sizeof(T) bytes of y are written once, after scale, bias and ReLU: no buffer of E elements is
// read or written.  Each lane of a tile fetches one edge (column, coefficient), so that structure
// is read in coalesced runs, and those of the next round are on their way while the tile goes
// through these, four at a time: the lane that has an edge hands out the offset and the
// coefficient by shuffle, and four gathers are in flight.
//
// Balance without a plan.  `Row` lanes own a row: a tile, or a warp, whose tiles take runs of its
// edges in turn and meet in a tree of shuffles (the launch decides by features, rows and edges
// alone).  A block owns the next kThreads / Row rows.  A row of more than kHub edges would leave
// its lanes busy long after all others have ended, so the whole block takes its hubs one after the
// other, and the sums meet in shared memory in a tree.  A row of more edges than a chunk of them
// would leave its block busy: where there may be such rows, a first kernel sums what lies of them
// in each chunk, a block a chunk, and the block of the row adds these sums in their order.  Who
// adds what is a function of crow alone: sums in a fixed order, no atomics, the same bits in every
// run, and no preprocessing that a change of the graph would void.
//
// The warp goes around together: loops end by vote, and shuffles name all 32 lanes.  A tile that
// is done first idles either way, and a constant mask spares the warp the synchronization of
// tiles that have parted.
//
// Offsets are 64-bit throughout.  The width of the indices is looked at where one is read: a
// uniform branch once an edge, and half as many instances.
#pragma once

#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

constexpr int kGroup = 4;     // edges gathered at once
constexpr int kEdgeTile = 8;  // lanes a row where there are no features
constexpr unsigned kWarp = 0xffffffffu;
// A row of more edges is work for a block. Short rows of many are where most lanes come from, and
// few hubs among them are worth a stop.
template <int Row>
constexpr int kHub = Row < 16 ? 32 * Row : 4 * Row;

// Rows of edges; col and edge may be null where a kernel does not ask for them, edge[k] is then k.
struct Csr {
  const void *crow, *col, *edge;
  int64_t rows;
  int64_t wide;  // int64 indices, else int32

  __device__ __forceinline__ int64_t index(const void* array, int64_t k) const {
    return wide ? static_cast<const int64_t*>(array)[k] : static_cast<const int32_t*>(array)[k];
  }
  __device__ __forceinline__ int64_t edge_of(int64_t k) const { return edge ? index(edge, k) : k; }
};

// ---- Rows and their edges ----

// What a tile does of a row: the edges begin + lane, begin + lane + stride, ... < end.
template <int Tile, int Row>
struct Share {
  int64_t begin, end;
  int slot;    // of the rows of this block
  bool works;  // there is such a row, and this tile has a share in it
  bool leads;  // this tile adds the loop and writes the row
  bool whole;  // the block does the row together

  __device__ __forceinline__ int64_t row() const {
    return int64_t{blockIdx.x} * (kThreads / Row) + slot;
  }
  __device__ __forceinline__ int stride() const { return whole ? kThreads : Row; }
};

// f(share) for the rows of this block: all at once, then hub by hub.  Every thread of the block
// comes along each time.  Arguments of the kernel go by value, here and into f: so they are read
// where they lie, in constant memory, and their address is never taken.
template <int Tile, int Row, typename F>
__device__ __forceinline__ void for_rows(const Csr csr, const F& f) {
  static_assert(Tile <= Row && Row <= 32);
  const int thread = static_cast<int>(threadIdx.x);
  Share<Tile, Row> share{0, 0, thread / Row, false, false, false};
  share.works = share.row() < csr.rows;
  if (share.works) {
    share.begin = csr.index(csr.crow, share.row());
    share.end = csr.index(csr.crow, share.row() + 1);
  }
  const bool hub = share.end - share.begin > kHub<Row>;
  if (hub) {
    share.begin = share.end = 0;
    share.works = false;
  }
  share.leads = share.works && thread % Row < Tile;
  share.begin += thread % Row / Tile * Tile;
  int turns = __syncthreads_or(hub) ? kThreads / Row : 0;
  // One loop for both kinds, so that f is compiled once.
#pragma unroll 1
  for (int turn = -1; turn < turns; ++turn) {
    if (turn >= 0) {
      share = {0, 0, turn, true, thread < Tile, true};
      if (share.row() >= csr.rows) break;
      share.begin = csr.index(csr.crow, share.row());
      share.end = csr.index(csr.crow, share.row() + 1);
      if (share.end - share.begin <= kHub<Row>) continue;
      share.begin += thread / Tile * Tile;
    }
    f(share);
  }
}

// The tiles that have had a share in a row: their sums, lane by lane, in the tile that leads.
template <int Tile, int Row, int N, typename S>
__device__ __forceinline__ void meet(const Share<Tile, Row>& share, SharedPointer<S> partial,
                                     S (&sum)[N]) {
  if (share.whole) return sum_tiles<N, S>(partial, static_cast<int>(threadIdx.x), Tile, sum);
#pragma unroll
  for (int step = Tile; step < Row; step *= 2) {
#pragma unroll
    for (int n = 0; n < N; ++n) sum[n] += __shfl_xor_sync(kWarp, sum[n], step);
  }
}

// Rows e .. e + 3 of the `count` whose offsets the lanes of the tile hold; zero where there is
// none, or where the lane has no features.
template <int Tile, int N, typename T>
__device__ __forceinline__ void gather(Vector<T, N> (&row)[kGroup], const T* rows,
                                       bool has_features, int64_t offset, int e, int count) {
#pragma unroll
  for (int u = 0; u < kGroup; ++u) {
    const int64_t from = __shfl_sync(kWarp, offset, e + u, Tile);
    row[u] = {};
    if (has_features && e + u < count) row[u] = load_vector<N>(rows + from);
  }
}

// The number of edges that the tile holds in this round; `k` is the calling lane's.
template <int Tile>
__device__ __forceinline__ int held_edges(int64_t end, int64_t k, int lane) {
  const int64_t left = end - (k - lane);
  return left < Tile ? static_cast<int>(left) : Tile;
}

// The sums over a tile of four values, value v in the lanes with lane % 4 == v: each of the first
// two exchanges halves what a lane still carries.
template <int Tile, typename S>
__device__ __forceinline__ S tile_sums(const S (&value)[kGroup], int lane) {
  const bool odd = lane & 1, high = lane & 2;
  const S a = (odd ? value[1] : value[0]) + __shfl_xor_sync(kWarp, odd ? value[0] : value[1], 1);
  const S b = (odd ? value[3] : value[2]) + __shfl_xor_sync(kWarp, odd ? value[2] : value[3], 1);
  S sum = (high ? b : a) + __shfl_xor_sync(kWarp, high ? a : b, 2);
#pragma unroll
  for (int step = kGroup; step < Tile; step *= 2) sum += __shfl_xor_sync(kWarp, sum, step);
  return sum;
}

// ---- y = act(row_scale (A col_scale x + loops) + bias) ----

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

// The row of edge k: the last that does not begin after it.
__device__ __forceinline__ int64_t row_of(const Csr csr, int64_t k) {
  int64_t low = 0, high = csr.rows;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (csr.index(csr.crow, middle) <= k) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Block c sums what lies in chunk c of rows that are longer than a chunk.  Reads log2(rows) entries
// of crow, and of such a row what spmm_kernel would read; writes at most two slots of features.
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
    const int64_t row = row_of(a.csr, begins ? past - 1 : first);
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

// ---- Both gradients, over the transposed matrix ----
//
// Row j holds N features a lane of x[j] and of the sum for grad_x[j] in registers and gathers each
// grad[i] once for both: grad_x[j] += c grad[i], and an inner product with x[j] that ends in the
// lane which holds the edge.  That lane alone writes grad_weight of the edge, and adds to it for
// further parts of the features and items of the batch, so these are loops in here and no grid.

template <typename T>
struct SpmmGradArgs {
  Csr csr;                                    // transposed: the rows are those of x
  const T* weight;                            // like the scales, grad_x and loop, may be null
  const Accumulate<T>*row_scale, *col_scale;  // row_scale belongs to the rows of grad
  const T *grad, *x;
  T* grad_x;
  Accumulate<T>*grad_weight, *dot, *loop;
  int64_t grad_stride, grad_batch_stride, x_stride, x_batch_stride, batch,
      features;  // < 2^31 features
  double self_loops;
};

template <typename T, int N, int Tile, int Row>
__global__ void __launch_bounds__(kThreads, 2) spmm_grad_kernel(const SpmmGradArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_SHARED(S, partial, kThreads * N);
  const int lane = static_cast<int>(threadIdx.x) % Tile;
  const S self_loops = static_cast<S>(a.self_loops);
  for_rows<Tile, Row>(a.csr, [=](const Share<Tile, Row>& share) {
    const S scale_j = share.works && a.col_scale ? a.col_scale[share.row()] : S(1);
    S dot = 0, loop = 0;
    bool add = false;
    for (int64_t item = 0; item < a.batch; ++item) {
      for (int part = 0; part < a.features; part += Tile * N) {
        const int feature = part + lane * N;
        const bool has_features = share.works && feature < a.features;
        const T* grad = a.grad + item * a.grad_batch_stride + feature;
        Vector<T, N> x = {};
        if (has_features)
          x = load_vector<N>(a.x + item * a.x_batch_stride + share.row() * a.x_stride + feature);
        S sum[N] = {};
        if (has_features && share.leads && self_loops != 0) {
          const S c = a.row_scale ? self_loops * a.row_scale[share.row()] : self_loops;
          const Vector<T, N> own = load_vector<N>(grad + share.row() * a.grad_stride);
          S inner = 0;
#pragma unroll
          for (int n = 0; n < N; ++n) {
            sum[n] = c * widen(own[n]);
            inner += widen(x[n]) * widen(own[n]);
          }
          loop += c * scale_j * inner;
        }
#pragma unroll 1
        for (int64_t k = share.begin + lane; __any_sync(kWarp, k - lane < share.end);
             k += share.stride()) {
          int64_t offset = 0, edge = 0;
          S c = 0, factor = scale_j;
          if (k < share.end) {
            const int64_t i = a.csr.index(a.csr.col, k);
            offset = i * a.grad_stride;
            edge = a.csr.edge_of(k);
            c = a.weight ? widen(a.weight[edge]) : S(1);
            if (a.row_scale) {
              c *= a.row_scale[i];
              factor *= a.row_scale[i];
            }
          }
          const int count = held_edges<Tile>(share.end, k, lane);
          S inner = 0;  // of the edge that this lane holds
#pragma unroll 1
          for (int e = 0; e < Tile; e += kGroup) {
            if (e > 0 && !__any_sync(kWarp, e < count)) break;
            Vector<T, N> rows[kGroup];
            gather<Tile>(rows, grad, has_features, offset, e, count);
            S products[kGroup] = {};
#pragma unroll
            for (int u = 0; u < kGroup; ++u) {
              const S c_u = __shfl_sync(kWarp, c, e + u, Tile);
#pragma unroll
              for (int n = 0; n < N; ++n) {
                const S g = widen(rows[u][n]);
                sum[n] += c_u * g;
                products[u] += widen(x[n]) * g;
              }
            }
            const S product = tile_sums<Tile>(products, lane);
            if (lane / kGroup == e / kGroup) inner = product;
          }
          if (k < share.end) {
            S* out = a.grad_weight + edge;
            *out = add ? *out + inner * factor : inner * factor;
          }
        }
        meet(share, partial, sum);
        if (has_features && share.leads) {
          Vector<T, N> grad_x;
#pragma unroll
          for (int n = 0; n < N; ++n) {
            const S value = sum[n] * scale_j;
            grad_x[n] = narrow<T>(value);
            dot += widen(x[n]) * value;
          }
          if (a.grad_x)
            store_row(a.grad_x + (item * a.csr.rows + share.row()) * a.features + feature, grad_x);
        }
        add = true;
      }
    }
    dot = tile_sum<Tile>(dot);
    loop = tile_sum<Tile>(loop);
    if (share.leads && lane == 0) {
      a.dot[share.row()] = dot;
      if (a.loop) a.loop[share.row()] = loop;
    }
  });
}

// ---- Sums and terms of edges: 4 to 16 bytes an edge, no features ----

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
    for (int64_t k = share.begin + lane; k < share.end; k += share.stride()) {
      const int64_t edge = csr.edge_of(k);
      const S other = col_term ? col_term[csr.index(csr.col, k)] : S(0);
      out[edge] = narrow<T>(value[edge] + term + other);
    }
  });
}

// ---- Column sums, with a ReLU's mask on the way ----
//
// sum[block] = sums over the rows block * rows_per_block ... of in [rows, F], and, where `output`
// is given, masked = in where output > 0, else 0, which is what is then summed.  Reads F *
// sizeof(T) bytes a row (twice that with a mask) and writes as much where there is a mask.  Tiles
// go over the rows in turn and meet in shared memory; a second launch, with one block, sums the
// sums of the blocks.  How many blocks there are depends on the shape alone.
template <typename T, typename Out, int N, int Tile>
__global__ void __launch_bounds__(kThreads, 4)
    column_sum_kernel(const T* __restrict__ in, const T* __restrict__ output,
                      T* __restrict__ masked, Out* __restrict__ sums, int64_t rows,
                      int64_t features, int64_t rows_per_block) {
  using S = Accumulate<T>;
  AMSTEL_SHARED(S, partial, kThreads * N);
  const int lane = static_cast<int>(threadIdx.x) % Tile;
  const int tile = static_cast<int>(threadIdx.x) / Tile;
  const int64_t first = blockIdx.x * rows_per_block;
  const int64_t last = first + rows_per_block < rows ? first + rows_per_block : rows;
  for (int64_t part = int64_t{blockIdx.y} * (Tile * N); part < features;
       part += int64_t{gridDim.y} * (Tile * N)) {
    const int64_t feature = part + lane * N;
    const bool has_features = feature < features;
    S sum[N] = {};
    if (has_features) {
#pragma unroll 2
      for (int64_t i = first + tile; i < last; i += kThreads / Tile) {
        Vector<T, N> value = load_vector<N>(in + i * features + feature);
        if (output) {
          const Vector<T, N> sign = load_vector<N>(output + i * features + feature);
#pragma unroll
          for (int n = 0; n < N; ++n) value[n] = widen(sign[n]) <= 0 ? narrow<T>(0) : value[n];
          store_vector(masked + i * features + feature, value);
        }
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += widen(value[n]);
      }
    }
    sum_tiles<N, S>(partial, threadIdx.x, Tile, sum);
    if (has_features && tile == 0) {
#pragma unroll
      for (int n = 0; n < N; ++n) sums[blockIdx.x * features + feature + n] = narrow<Out>(sum[n]);
    }
  }
}

}  // namespace amstel::cuda
