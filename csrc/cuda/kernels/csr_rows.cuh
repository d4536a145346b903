// The rows of a CSR matrix and their edges, shared out among the tiles of a block: what the kernels
// on graphs have in common; no kernel of its own, torch-free.
//
// Data flow.  A row costs two entries of crow, an edge 4 or 8 bytes of col and, where the kernel
// asks for them, of edge.  `Row` lanes own a row: a tile, or a warp, whose tiles take runs of its
// edges in turn and meet in a tree of shuffles.  A block owns the next kThreads / Row rows.  A row
// of more than kHub edges would leave its lanes busy long after all others have ended, so the whole
// block takes its hubs one after the other, and the sums meet in shared memory in a tree.  Who adds
// what is a function of crow alone: sums in a fixed order, no atomics, the same bits in every run,
// and no preprocessing that a change of the graph would void.
//
// The warp goes around together: loops end by vote, and shuffles name all 32 lanes.  A tile that is
// done first idles either way, and a constant mask spares the warp the synchronization of tiles
// that have parted.
//
// Offsets are 64-bit throughout.  The width of the indices is looked at where one is read: a
// uniform branch once an edge, and half as many instances.
#pragma once

#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

constexpr int kGroup = 4;  // edges gathered at once
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

// The same for a block that asks for one k: a probe a thread, so that there are log(rows) /
// log(256) loads one after the other instead of log2(rows).
__device__ __forceinline__ int64_t row_of_block(const Csr csr, int64_t k) {
  int64_t low = 0, high = csr.rows;
  while (high - low > 1) {
    const int64_t step = (high - low + kThreads - 1) / kThreads;
    const int64_t probe = low + threadIdx.x * step;
    const bool begun = probe == low || (probe < high && csr.index(csr.crow, probe) <= k);
    low += (__syncthreads_count(begun) - 1) * step;
    if (low + step < high) high = low + step;
  }
  return low;
}

}  // namespace amstel::cuda
