// Column sums, with a ReLU's mask on the way: the gradients through bias and activation;
// torch-free.
//
// Data flow.  sum[block] = sums over the rows block * rows_per_block ... of in [rows, F], and,
// where `output` is given, masked = in where output > 0, else 0, which is what is then summed.
// Reads F * sizeof(T) bytes a row (twice that with a mask) and writes as much where there is a
// mask.  Tiles go over the rows in turn and meet in shared memory; a second launch, with one block,
// sums the sums of the blocks.  How many blocks there are depends on the shape alone.
#pragma once

#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

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
