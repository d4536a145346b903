// What goes around the Fourier transforms of multi-coil MRI; torch-free.  Complex numbers are two
// neighboring real ones of type S.
//
// Data flow, in complex numbers.  Expand, S_c x: x is read once for each group of kCoilGroup coils
// (from a cache but once), a sensitivity is read and a coil image written: 2 + 1 / kCoilGroup a
// coil and pixel.  Reduce, (sum_c conj(S_c) z_c - minus) factor: a thread adds up all coils of its
// pixels, in order, so 2 read a coil and pixel and 1 written a pixel (1 more read with `minus`).
// Residual, k = factor mask (k - minus), in place: 1 read and 1 written (2 read with `minus`), the
// mask from the cache.
//
// Expand and reduce: a thread takes an access of the pixels of an image, grid.x are these, grid.y
// groups of coils (expand only) and grid.z images.  Residual: blockDim.x lanes, a power of two,
// take a row of k-space in turns and blockDim.y rows are done at once, so that a pixel's column and
// row are known without a division; grid.x are rows, grid.y coils and grid.z images.  An access is
// 16 bytes, two complex numbers of float, where pointers and the number of pixels (of columns, for
// the residual) allow.  No sum is shared by threads.
#pragma once

#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

constexpr int kCoilGroup = 4;

// The complex numbers of an access of N elements; of N = 1 one number in two accesses.
template <typename S, int N>
struct Complexes {
  static constexpr int kCount = N > 1 ? N / 2 : 1, kElements = 2 * kCount;
  Vector<S, kElements> data;

  __device__ __forceinline__ S& re(int i) { return data[2 * i]; }
  __device__ __forceinline__ S& im(int i) { return data[2 * i + 1]; }
  __device__ __forceinline__ void load(const S* pointer) {
    if constexpr (N > 1) {
      data = load_vector<N>(pointer);
    } else {
      data[0] = pointer[0];
      data[1] = pointer[1];
    }
  }
  __device__ __forceinline__ void store(S* pointer) const {
    if constexpr (N > 1) {
      store_row(pointer, data);
    } else {
      pointer[0] = data[0];
      pointer[1] = data[1];
    }
  }
};

template <typename S>
struct CoilArgs {
  const S *x, *sensitivities, *minus,
      *scale;  // x: images, or coil images; the last two may be null
  double factor;
  S* out;
  int64_t items, coils, size;  // size: elements of an image
  int64_t of_item;             // elements from image to image of the sensitivities, or 0
};

template <typename S, int N>
__global__ void __launch_bounds__(kThreads, 4) coil_expand_kernel(const CoilArgs<S> a) {
  using C = Complexes<S, N>;
  const int64_t k = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * C::kElements;
  if (k >= a.size) return;
  for (int64_t item = blockIdx.z; item < a.items; item += gridDim.z) {
    C x;
    x.load(a.x + item * a.size + k);
#pragma unroll 1
    for (int64_t first = int64_t{blockIdx.y} * kCoilGroup; first < a.coils;
         first += int64_t{gridDim.y} * kCoilGroup) {
#pragma unroll
      for (int c = 0; c < kCoilGroup; ++c) {
        if (first + c >= a.coils) break;
        C s, out;
        s.load(a.sensitivities + item * a.of_item + (first + c) * a.size + k);
#pragma unroll
        for (int i = 0; i < C::kCount; ++i) {
          out.re(i) = s.re(i) * x.re(i) - s.im(i) * x.im(i);
          out.im(i) = s.re(i) * x.im(i) + s.im(i) * x.re(i);
        }
        out.store(a.out + (item * a.coils + first + c) * a.size + k);
      }
    }
  }
}

template <typename S, int N>
__global__ void __launch_bounds__(kThreads, 4) coil_reduce_kernel(const CoilArgs<S> a) {
  using C = Complexes<S, N>;
  const int64_t k = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * C::kElements;
  if (k >= a.size) return;
  for (int64_t item = blockIdx.z; item < a.items; item += gridDim.z) {
    const S* s_at = a.sensitivities + item * a.of_item + k;
    const S* z_at = a.x + item * a.coils * a.size + k;
    C sum{};
#pragma unroll 4
    for (int64_t c = 0; c < a.coils; ++c, s_at += a.size, z_at += a.size) {
      C s, z;
      s.load(s_at);
      z.load(z_at);
#pragma unroll
      for (int i = 0; i < C::kCount; ++i) {
        sum.re(i) += s.re(i) * z.re(i) + s.im(i) * z.im(i);
        sum.im(i) += s.re(i) * z.im(i) - s.im(i) * z.re(i);
      }
    }
    C minus{};
    if (a.minus) minus.load(a.minus + item * a.size + k);
    const S scale = static_cast<S>(a.factor) * (a.scale ? a.scale[item] : S(1));
#pragma unroll
    for (int i = 0; i < C::kElements; ++i) sum.data[i] = (sum.data[i] - minus.data[i]) * scale;
    sum.store(a.out + item * a.size + k);
  }
}

template <typename S>
struct KspaceArgs {
  S* k;
  const S *minus, *mask;  // minus may be null
  int64_t items, coils, height, width;
  int64_t of_item, of_row;  // elements from image to image and from row to row of the mask, or 0
  S factor;
};

template <typename S, int N>
__global__ void __launch_bounds__(kThreads, 4) kspace_residual_kernel(const KspaceArgs<S> a) {
  using C = Complexes<S, N>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= a.height) return;
  for (int64_t item = blockIdx.z; item < a.items; item += gridDim.z) {
    const S* const mask = a.mask + item * a.of_item + row * a.of_row;
    for (int64_t coil = blockIdx.y; coil < a.coils; coil += gridDim.y) {
      const int64_t line = ((item * a.coils + coil) * a.height + row) * 2 * a.width;
#pragma unroll 1
      for (int64_t w = int64_t{threadIdx.x} * C::kCount; w < a.width;
           w += int64_t{blockDim.x} * C::kCount) {
        C k, minus{};
        k.load(a.k + line + 2 * w);
        if (a.minus) minus.load(a.minus + line + 2 * w);
        const Vector<S, C::kCount> weight = load_vector<C::kCount>(mask + w);
#pragma unroll
        for (int i = 0; i < C::kElements; ++i) {
          // A choice, so that what was not measured may be anything.
          const S m = a.factor * weight[i / 2];
          k.data[i] = m == 0 ? S(0) : m * (k.data[i] - minus.data[i]);
        }
        k.store(a.k + line + 2 * w);
      }
    }
  }
}

}  // namespace amstel::cuda
