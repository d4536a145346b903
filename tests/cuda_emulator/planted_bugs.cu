// Kernels that test the emulator itself: correct ones, which must give NumPy's results in every
// thread order, and planted bugs, each of which must be reported.  Compiles under nvcc too.
#include "instances.h"

namespace sample {

using amstel::Vector;

// ---- Correct ----

// One sum a block, by a tree in shared memory.
template <typename T, int Threads>
__global__ void __launch_bounds__(Threads)
    block_sum(const T* __restrict__ x, T* __restrict__ sums, int64_t n) {
  AMSTEL_SHARED(T, partial, Threads);
  const int64_t i = int64_t{blockIdx.x} * Threads + threadIdx.x;
  partial[threadIdx.x] = i < n ? x[i] : T(0);
  __syncthreads();
  for (int half = Threads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

// Inclusive scan of each block's values: shuffles inside the warps, shared memory between them.
__global__ void __launch_bounds__(256) block_scan(const int* x, int* y, int n) {
  AMSTEL_SHARED(int, totals, 8);
  const int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32,
            warp = threadIdx.x / 32;
  int value = i < n ? x[i] : 0;
  for (int step = 1; step < 32; step *= 2) {
    const int left = __shfl_up_sync(0xffffffffu, value, step);
    if (lane >= step) value += left;
  }
  if (lane == 31) totals[warp] = value;
  __syncthreads();
  for (int w = 0; w < warp; ++w) value += totals[w];
  if (i < n) y[i] = value;
}

// y = a * x, 16 bytes at a time.
template <typename T>
__global__ void __launch_bounds__(128)
    scale(const T* __restrict__ x, T* __restrict__ y, float a, int n) {
  constexpr int kWidth = amstel::kVectorWidth<T>;
  const int first = (blockIdx.x * blockDim.x + threadIdx.x) * kWidth;
  if (first + kWidth <= n) {
    Vector<T, kWidth> v = amstel::load16(x + first);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) v[k] = amstel::narrow<T>(amstel::widen(v[k]) * a);
    amstel::store16(y + first, v);
  } else {
    for (int i = first; i < n; ++i) y[i] = amstel::narrow<T>(amstel::widen(x[i]) * a);
  }
}

// Counts of the values 0..bins-1: shared then global atomics; the counters are dynamic shared
// memory.
__global__ void __launch_bounds__(256) histogram(const int* x, unsigned* counts, int n, int bins) {
  AMSTEL_DYNAMIC_SHARED(unsigned, local);
  for (int b = threadIdx.x; b < bins; b += blockDim.x) local[b] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&local[x[i]], 1u);
  }
  __syncthreads();
  for (int b = threadIdx.x; b < bins; b += blockDim.x) atomicAdd(&counts[b], local[b]);
}

// Reverses each run of Width values through shared memory, 16 bytes in, one value out, ordered by
// __syncwarp alone; the two arrays share the dynamic shared memory.
template <int Width>
__global__ void __launch_bounds__(64) reverse_runs(const float* x, float* y, int* lanes) {
  AMSTEL_DYNAMIC_SHARED(float, values);
  const amstel::SharedPointer<int> marks = amstel::shared_cast<int>(values + 4 * blockDim.x);
  const unsigned mask = amstel::tile_mask<Width>();
  const int run = threadIdx.x / Width * Width * 4, lane = threadIdx.x % Width;
  const int base = blockIdx.x * blockDim.x * 4;
  amstel::store16(values + run + lane * 4, amstel::load16(x + base + run + lane * 4));
  marks[threadIdx.x] = __popc(__ballot_sync(mask, lane % 2 == 0));
  __syncwarp(mask);
  for (int k = lane; k < 4 * Width; k += Width) y[base + run + k] = values[run + 4 * Width - 1 - k];
  lanes[blockIdx.x * blockDim.x + threadIdx.x] =
      marks[threadIdx.x / Width * Width + Width - 1 - lane];
}

// Row sums with a tile of lanes a row.
template <typename T, int Width>
__global__ void __launch_bounds__(128) row_sum(const T* x, T* sums, int rows, int columns) {
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / Width;
  amstel::Accumulate<T> sum = 0;
  if (row < rows) {
    for (int c = threadIdx.x % Width; c < columns; c += Width)
      sum += amstel::widen(x[int64_t{row} * columns + c]);
  }
  sum = amstel::tile_sum<Width>(sum);
  if (row < rows && threadIdx.x % Width == 0) sums[row] = amstel::narrow<T>(sum);
}

// For the speed of the emulator: nothing but an index and a store.
__global__ void __launch_bounds__(256) iota(int* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = i;
}

// ---- Planted bugs ----

__global__ void missing_barrier(const int* x, int* y) {
  AMSTEL_SHARED(int, tile, 64);
  tile[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

// The values are read, then overwritten by others without a barrier.
__global__ void missing_second_barrier(const int* x, int* y) {
  AMSTEL_SHARED(int, tile, 64);
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  const int value = tile[blockDim.x - 1 - threadIdx.x];
  tile[threadIdx.x] = value;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

// A warp's values, handed on without __syncwarp.
__global__ void missing_syncwarp(const int* x, int* y) {
  AMSTEL_SHARED(int, tile, 32);
  tile[threadIdx.x] = x[threadIdx.x];
  const int all = __any_sync(0xffffffffu, 1);  // waits for the lanes but orders no memory
  y[threadIdx.x] = tile[31 - threadIdx.x] * all;
}

// An atomic update and a plain read of the same counter.
__global__ void atomic_and_plain(int* y) {
  AMSTEL_SHARED(int, counter, 1);
  if (threadIdx.x == 0) counter[0] = 0;
  __syncthreads();
  atomicAdd(&counter[0], 1);
  y[threadIdx.x] = counter[0];
}

__global__ void shared_out_of_bounds(int* y) {
  AMSTEL_SHARED(int, tile, 32);
  tile[threadIdx.x + 1] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

__global__ void dynamic_out_of_bounds(int* y) {
  AMSTEL_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x] = y[threadIdx.x];
}

__global__ void shared_misaligned(float* y) {
  AMSTEL_SHARED(float, tile, 64);
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  const Vector<float, 4> v = amstel::load16(tile + threadIdx.x);
  y[threadIdx.x] = v[0] + v[1] + v[2] + v[3];
}

__global__ void global_misaligned(const float* x, float* y) {
  const Vector<float, 4> v = amstel::load16(x + threadIdx.x);
  y[threadIdx.x] = v[0] + v[1] + v[2] + v[3];
}

__global__ void uninitialized_read(int* y) {
  AMSTEL_SHARED(int, tile, 64);
  if (threadIdx.x != 5) tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

__global__ void global_write_out_of_bounds(int* y, int n) {
  if (threadIdx.x <= n) y[threadIdx.x] = threadIdx.x;
}

__global__ void global_read_out_of_bounds(const int* x, int* y, int n) {
  if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x + 1];
}

// Some threads leave before the barrier.
__global__ void exit_before_barrier(int* y) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  y[threadIdx.x] = 1;
}

__global__ void divergent_barrier(int* y) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  y[threadIdx.x] = 1;
}

__global__ void caller_outside_mask(int* y) {
  y[threadIdx.x] = __shfl_sync(0xffffu, threadIdx.x, 0);
}

__global__ void source_outside_mask(int* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0xffffu, threadIdx.x, 8);
}

__global__ void named_lane_ended(int* y) {
  if (threadIdx.x == 7) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
}

// Half a warp waits for the other half, which waits for the whole block.
__global__ void deadlock(int* y) {
  if (threadIdx.x < 16) {
    y[threadIdx.x] = __shfl_sync(0xffffffffu, threadIdx.x, 0);
    __syncthreads();
  } else {
    __syncthreads();
  }
}

// Which thread comes last is nobody's promise.
__global__ void order_dependent(int* y) { y[0] = threadIdx.x; }

}  // namespace sample

AMSTEL_TEST_INSTANCE(block_sum_f32, sample::block_sum<float, 128>);
AMSTEL_TEST_INSTANCE(block_sum_f64, sample::block_sum<double, 256>);
AMSTEL_TEST_INSTANCE(block_scan, sample::block_scan);
AMSTEL_TEST_INSTANCE(scale_f32, sample::scale<float>);
AMSTEL_TEST_INSTANCE(scale_f16, sample::scale<__half>);
AMSTEL_TEST_INSTANCE(scale_bf16, sample::scale<__nv_bfloat16>);
AMSTEL_TEST_INSTANCE(histogram, sample::histogram);
AMSTEL_TEST_INSTANCE(reverse_runs_8, sample::reverse_runs<8>);
AMSTEL_TEST_INSTANCE(reverse_runs_32, sample::reverse_runs<32>);
AMSTEL_TEST_INSTANCE(row_sum_f32, sample::row_sum<float, 8>);
AMSTEL_TEST_INSTANCE(row_sum_f16, sample::row_sum<__half, 32>);
AMSTEL_TEST_INSTANCE(iota, sample::iota);

AMSTEL_TEST_INSTANCE(missing_barrier, sample::missing_barrier);
AMSTEL_TEST_INSTANCE(missing_second_barrier, sample::missing_second_barrier);
AMSTEL_TEST_INSTANCE(missing_syncwarp, sample::missing_syncwarp);
AMSTEL_TEST_INSTANCE(atomic_and_plain, sample::atomic_and_plain);
AMSTEL_TEST_INSTANCE(shared_out_of_bounds, sample::shared_out_of_bounds);
AMSTEL_TEST_INSTANCE(dynamic_out_of_bounds, sample::dynamic_out_of_bounds);
AMSTEL_TEST_INSTANCE(shared_misaligned, sample::shared_misaligned);
AMSTEL_TEST_INSTANCE(global_misaligned, sample::global_misaligned);
AMSTEL_TEST_INSTANCE(uninitialized_read, sample::uninitialized_read);
AMSTEL_TEST_INSTANCE(global_write_out_of_bounds, sample::global_write_out_of_bounds);
AMSTEL_TEST_INSTANCE(global_read_out_of_bounds, sample::global_read_out_of_bounds);
AMSTEL_TEST_INSTANCE(exit_before_barrier, sample::exit_before_barrier);
AMSTEL_TEST_INSTANCE(divergent_barrier, sample::divergent_barrier);
AMSTEL_TEST_INSTANCE(caller_outside_mask, sample::caller_outside_mask);
AMSTEL_TEST_INSTANCE(source_outside_mask, sample::source_outside_mask);
AMSTEL_TEST_INSTANCE(named_lane_ended, sample::named_lane_ended);
AMSTEL_TEST_INSTANCE(deadlock, sample::deadlock);
AMSTEL_TEST_INSTANCE(order_dependent, sample::order_dependent);
