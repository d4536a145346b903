// The normal operator of multi-coil MRI for a mask of columns,
// (sum_c conj(S_c) F^-1 M F (S_c x) - minus) scale, with transforms along rows; torch-free.
//
// Data flow, in complex numbers a pixel. Of each coil the sensitivity is read once: 1. x, `minus`
// and the result are 1 each for all coils, x once more for every further group of coils (from a
// cache). The rest stays on the multiprocessor.
//
// A block has some neighboring rows of an image, mostly one, and takes `group` coils at a time. Its
// threads have the pixels of these rows in turns. They put S_c x of all coils of the group into
// shared memory, and S_c beside it; the block transforms all these lines at once, by the passes of
// fft.cuh, the threads sharing the work of all lines evenly; then each adds up its pixels over the
// coils, in order, and after the last coil writes them. No sum is shared by threads.
//
// An inverse transform is a forward one between two conjugations: the first comes with the mask,
// between the two transforms, in the registers of the last pass of the one, which is the first of
// the other; the second is that of the final sum, as
//   sum_c conj(S_c) conj(F conj(k_c)) = conj(sum_c S_c F conj(k_c)).
// So a number goes through shared memory 2 m - 1 times for m passes, 3 in most cases. Twiddle
// factors and the mask, in the order of the frequencies that the passes leave, are tables in shared
// memory, made anew by every block: a few percent of its work.
#pragma once

#include "cuda/kernels/fft.cuh"

namespace amstel::cuda {

constexpr int kLineThreads = 128;  // of a block

template <typename S>
struct MriColumnsArgs {
  const S *x, *sensitivities, *mask, *minus, *scale;  // all but x and mask may be null
  S* out;
  double factor;
  int64_t size, of_item;  // elements of an image, and from item to item of the sensitivities or 0
  int64_t items;
  int32_t height, coils;
  int32_t rows, group;  // of a block at a time: rows, and coils
  FftPlan plan;
  // Where in shared memory, in complex numbers, come behind the lines: sensitivities, sums where
  // they outlive a group, twiddle factors, mask.
  int32_t maps, sums, twiddles, mask_at;

  // Fills in these; returns all bytes there.
  int64_t place() {
    const int lines = group * rows * plan.line;
    maps = lines;
    sums = maps + (sensitivities ? lines : 0);
    twiddles = sums + (group < coils ? rows * plan.size.by : 0);
    mask_at = twiddles + plan.twiddles;
    return int64_t{sizeof(S)} * (2 * mask_at + plan.line);
  }
};

// The tables of a plan.
template <typename S>
__device__ __forceinline__ void make_tables(const FftPlan& plan, const S* weights,
                                            SharedPointer<Complex<S>> twiddles,
                                            SharedPointer<S> mask) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int s = 0; s < kFftStages - 1; ++s) {
    if (s + 1 >= plan.stages) break;
    const FftStage stage = plan.stage[s];
    const int size = stage.radix.by * stage.within.by;
    const S half = S(1) / static_cast<S>(2 * size);
#pragma unroll 1
    for (int k = thread; k < stage.pitch.by * stage.within.by; k += kLineThreads) {
      const int i = stage.pitch.of(k), q = k - i * stage.pitch.by + 1;
      twiddles[stage.twiddles + k] = twiddle<S>(q * i, size, half);
    }
  }
#pragma unroll 1
  for (int frequency = thread; frequency < plan.size.by; frequency += kLineThreads) {
    int place = 0, rest = frequency;
#pragma unroll
    for (int s = 0; s < kFftStages; ++s) {
      if (s >= plan.stages) break;
      const int digits = plan.stage[s].radix.of(rest);
      place += (rest - digits * plan.stage[s].radix.by) * plan.stage[s].apart;
      rest = digits;
    }
    mask[place] = weights[frequency];
  }
}

// A pass over lines one after the other, `numbers` in all: forth with twiddle factors after the
// transforms, back with them before.
template <int R, typename S>
__device__ __forceinline__ void outer_pass(const FftPlan& plan, const FftStage& stage, bool back,
                                           SharedPointer<Complex<S>> z,
                                           SharedPointer<Complex<S>> twiddles, int numbers) {
  const int within = stage.within.by, apart = stage.apart;
#pragma unroll 1
  for (int task = static_cast<int>(threadIdx.x); task < numbers / R; task += kLineThreads) {
    const int block = stage.within.of(task), i = task - block * within;
    const SharedPointer<Complex<S>> at = z + (block * stage.block + plan.place(i));
    const SharedPointer<Complex<S>> turns = twiddles + (stage.twiddles + i * twiddle_pitch(R));
    Complex<S> v[R];
#pragma unroll
    for (int q = 0; q < R; ++q) v[q] = at[q * apart];
    const auto twist = [&] {
#pragma unroll
      for (int q = 1; q < R; ++q) {
        const Complex<S> by = turns[q - 1];
        v[q] = v[q] * by;
      }
    };
    if (back) twist();
    dft<R>(v);
    if (!back) twist();
    // At addresses formed anew: those of the loads would take a register each all the while.
#pragma unroll
    for (int q = 0; q < R; ++q) at[q * stage.apart_again] = v[q];
  }
}

// The last pass forth, mask, conjugation, and the first pass back: a run of neighbors each.
template <int R, typename S>
__device__ __forceinline__ void middle_pass(const FftPlan& plan, SharedPointer<Complex<S>> z,
                                            SharedPointer<S> mask, int numbers) {
  const int pitch = R + plan.pad;
#pragma unroll 1
  for (int run = static_cast<int>(threadIdx.x); run < numbers / R; run += kLineThreads) {
    const SharedPointer<Complex<S>> at = z + run * pitch;
    const SharedPointer<S> weights = mask + (run - plan.runs.of(run) * plan.runs.by) * pitch;
    Complex<S> v[R];
#pragma unroll
    for (int q = 0; q < R; ++q) v[q] = at[q];
    dft<R>(v);
#pragma unroll
    for (int q = 0; q < R; ++q) {
      const S weight = weights[q];
      v[q] = {weight * v[q].re, -weight * v[q].im};
    }
    dft<R>(v);
#pragma unroll
    for (int q = 0; q < R; ++q) at[q] = v[q];
  }
}

// F mask conj(F z) of all lines.
template <typename S>
__device__ __forceinline__ void transform_lines(const FftPlan& plan, SharedPointer<Complex<S>> z,
                                                SharedPointer<Complex<S>> twiddles,
                                                SharedPointer<S> mask, int numbers) {
  const int last = plan.stages - 1;
#pragma unroll 1
  for (int pass = 0; pass <= 2 * last; ++pass) {
    __syncthreads();
    const FftStage stage = plan.at(pass > last ? 2 * last - pass : pass);
    if (pass == last)
      with_radix(stage.radix.by, Radices<S>{}, [&](auto radix) {
        middle_pass<decltype(radix)::value, S>(plan, z, mask, numbers);
      });
    else
      with_radix(stage.radix.by, OuterRadices{}, [&](auto radix) {
        outer_pass<decltype(radix)::value, S>(plan, stage, pass > last, z, twiddles, numbers);
      });
  }
  __syncthreads();
}

// Of pixel p of the rows of a block, on the lines of the first coil.
__device__ __forceinline__ int place_of(const FftPlan& plan, int p) {
  const int row = plan.size.of(p);
  return row * plan.line + plan.place(p - row * plan.size.by);
}

template <typename S>
__global__ void __launch_bounds__(kLineThreads, sizeof(S) == 8 ? 2 : 5)
    mri_columns_kernel(const MriColumnsArgs<S> a) {
  using C = Complex<S>;
  constexpr int kAhead = 6;  // sensitivities of a thread that are on their way at a time
  AMSTEL_DYNAMIC_SHARED(C, lines);
  const SharedPointer<C> maps = lines + a.maps, sums = lines + a.sums;
  const SharedPointer<C> twiddles = lines + a.twiddles;
  const SharedPointer<S> mask = shared_cast<S>(lines + a.mask_at);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t item = int64_t{blockIdx.z} * gridDim.y + blockIdx.y;
  if (item >= a.items) return;
  const int first = static_cast<int>(blockIdx.x) * a.rows, rows = min(a.rows, a.height - first);
  const int pixels = rows * a.plan.size.by, of_coil = rows * a.plan.line;
  const int64_t offset = 2 * int64_t{first} * a.plan.size.by;
  make_tables<S>(a.plan, a.mask, twiddles, mask);

#pragma unroll 1
  for (int coil = 0; coil < a.coils; coil += a.group) {
    const int coils = min(a.group, a.coils - coil);
#pragma unroll 1
    for (int p = thread; p < pixels; p += kLineThreads) {
      const int place = place_of(a.plan, p);
      const C x = load_complex(a.x + item * a.size + offset + 2 * p);
      if (!a.sensitivities) {
        lines[place] = x;
        continue;
      }
      const S* s = a.sensitivities + item * a.of_item + coil * a.size + offset + 2 * p;
      SharedPointer<C> z = lines + place, map = maps + place;
#pragma unroll 1
      for (int left = coils; left > 0; left -= kAhead) {
        C ahead[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i, s += a.size)
          if (i < left) ahead[i] = load_complex(s);
#pragma unroll
        for (int i = 0; i < kAhead; ++i, z += of_coil, map += of_coil)
          if (i < left) {
            map[0] = ahead[i];
            z[0] = ahead[i] * x;
          }
      }
    }
    transform_lines<S>(a.plan, lines, twiddles, mask, coils * pixels);
#pragma unroll 1
    for (int p = thread; p < pixels; p += kLineThreads) {
      const int place = place_of(a.plan, p);
      C sum{};
      if (coil > 0) sum = sums[p];
      SharedPointer<C> z = lines + place, map = maps + place;
      if (a.sensitivities) {
#pragma unroll 4
        for (int c = 0; c < coils; ++c, z += of_coil, map += of_coil) {
          const C v = z[0], s = map[0];
          sum = sum + s * v;
        }
      } else {
        sum = z[0];
      }
      if (coil + coils < a.coils) {
        sums[p] = sum;
        continue;
      }
      const int64_t at = item * a.size + offset + 2 * p;
      const C minus = a.minus ? load_complex(a.minus + at) : C{};
      const S norm = S(1) / static_cast<S>(a.plan.size.by);
      const S scale = static_cast<S>(a.factor) * (a.scale ? a.scale[item] : S(1));
      store_complex(a.out + at,
                    C{(norm * sum.re - minus.re) * scale, (-norm * sum.im - minus.im) * scale});
    }
  }
}

}  // namespace amstel::cuda
