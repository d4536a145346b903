// The normal operator of multi-coil MRI on CUDA, for masks of columns: check, allocate, launch. The
// kernel and how its threads share the work are in kernels/mri_columns.cuh, the meaning of the
// arguments in library.cpp. Other masks go through mri_op.cu and PyTorch's transforms.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "common/mri_check.h"
#include "common/rows.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/mri_columns.cuh"

namespace amstel::cuda {
namespace {

constexpr int64_t kMostBytes = 48 << 10;  // of shared memory, which every device gives to a block
// Numbers of a block at a time: five blocks of float fill the shared memory of a multiprocessor.
template <class S>
constexpr int64_t kNumbers = 16 * kLineThreads * sizeof(float) / sizeof(S);
// Blocks that fill a large card; only where there are more do short rows share one.
#ifdef AMSTEL_EMULATED
constexpr int64_t kManyBlocks = 3;  // so that the tests meet both
#else
constexpr int64_t kManyBlocks = 512;
#endif

// Complex numbers are read as one access each.
Tensor aligned(const Tensor& t) {
  const auto address = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  return address % (2 * t.element_size()) ? torch::stable::clone(t) : t;
}
OptionalTensor aligned(const OptionalTensor& t) { return t ? OptionalTensor(aligned(*t)) : t; }

// Of rows that the kernel takes; python/amstel/ops/_mri.py asks for no others.
template <class S>
FftPlan plan_of(const char* op, int64_t width) {
  constexpr int64_t kWidest = sizeof(S) == 8 ? 512 : 1024;
  const FftPlan plan = width <= kWidest ? fft_plan<S>(static_cast<int>(width)) : FftPlan{};
  AMSTEL_CHECK(plan.stages, op, ": on CUDA rows of `x` must have at most ", kWidest,
               " numbers, and prime factors up to ", kLargestOuter, " but for one up to ",
               kLargestRadix<S>, ", got ", width);
  return plan;
}

// How many coils and rows a block takes at a time: equal groups of coils, and several rows where
// all coils of one are too few. Returns the bytes of shared memory.
template <class S>
int64_t share(MriColumnsArgs<S>& a) {
  const int64_t width = a.plan.size.by;
  for (int64_t most = std::max<int64_t>(1, kNumbers<S> / width);; --most) {
    a.group = static_cast<int32_t>(divide_up(a.coils, divide_up(a.coils, most)));
    const int64_t rows = std::min(
        {kNumbers<S> / (a.group * width), a.items * a.height / kManyBlocks, int64_t{a.height}});
    a.rows = a.group < a.coils ? 1 : static_cast<int32_t>(std::max<int64_t>(1, rows));
    const int64_t bytes = a.place();
    if (bytes <= kMostBytes || most == 1) return bytes;
  }
}

}  // namespace

Tensor mri_normal(Tensor x, Tensor mask, OptionalTensor sensitivities, OptionalTensor minus,
                  OptionalTensor scale, double factor) {
  const char* op = "mri_normal";
  const auto [s, m] = check_normal(op, x, mask, sensitivities, minus, scale);
  AMSTEL_CHECK(m.columns, op, ": on CUDA `mask` must be of columns, [", s.width, "], got ",
               describe(mask));
  const CurrentStream stream(x);
  Tensor out = empty(x, {s.items, s.height, s.width, 2});
  if (!out.numel()) return out;
  if (!s.coils) {  // a sum of nothing
    torch::stable::zero_(out);
    return out;
  }
  AMSTEL_CHECK(std::max(s.height, s.coils) < kGridX, op, ": fewer than ", kGridX,
               " rows and coils expected");
  const Tensor image = aligned(x);
  const OptionalTensor maps = aligned(sensitivities), less = aligned(minus);
  const auto launch = [&](auto type) {
    using S = typename decltype(type)::type;
    const FftPlan plan = plan_of<S>(op, s.width);
    const int64_t size = 2 * s.height * s.width;
    MriColumnsArgs<S> a{.x = data<S>(image),
                        .sensitivities = data<S>(maps),
                        .mask = data<S>(mask),
                        .minus = data<S>(less),
                        .scale = data<S>(scale),
                        .out = mutable_data<S>(out),
                        .factor = factor,
                        .size = size,
                        .of_item = s.shared ? 0 : s.coils * size,
                        .items = s.items,
                        .height = static_cast<int32_t>(s.height),
                        .coils = static_cast<int32_t>(s.coils),
                        .plan = plan};
    const auto bytes = static_cast<size_t>(share(a));
    const unsigned across = grid_yz(s.items);
    const dim3 grid(blocks(op, divide_up(s.height, a.rows)), across, divide_up(s.items, across));
    AMSTEL_LAUNCH((mri_columns_kernel<S>), grid, kLineThreads, bytes, stream, a);
    check_launch(op);
  };
  x.scalar_type() == ScalarType::Double ? launch(Type<double>{}) : launch(Type<float>{});
  return out;
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("mri_normal", TORCH_BOX(&amstel::cuda::mri_normal));
}
