// What goes around the Fourier transforms of multi-coil MRI on CUDA: check, allocate, launch.  The
// kernels and how their threads share the work are in kernels/mri.cuh, the meaning of the arguments
// in library.cpp; python/amstel/ops/_mri.py puts them together with PyTorch's transforms.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/mri_check.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/mri.cuh"

namespace amstel::cuda {
namespace {

// f(Type<S>{}, Int<N>{}): elements an access, of complex numbers that come in runs of `run`.
template <class F>
void with_access(const Tensor& t, int64_t run, const Alignment& alignment, const F& f) {
  if (t.scalar_type() == ScalarType::Double)
    return alignment.allows(16) ? f(Type<double>{}, Int<2>{}) : f(Type<double>{}, Int<1>{});
  if (run % 2 == 0 && alignment.allows(16)) return f(Type<float>{}, Int<4>{});
  alignment.allows(8) ? f(Type<float>{}, Int<2>{}) : f(Type<float>{}, Int<1>{});
}

template <class S>
CoilArgs<S> coil_args(const MriShape& s, const Tensor& x, const Tensor& sensitivities,
                      const Tensor& out) {
  const int64_t size = 2 * s.height * s.width;
  CoilArgs<S> a{};
  a.x = data<S>(x);
  a.sensitivities = data<S>(sensitivities);
  a.factor = 1;
  a.out = mutable_data<S>(out);
  a.items = s.items;
  a.coils = s.coils;
  a.size = size;
  a.of_item = s.shared ? 0 : s.coils * size;
  return a;
}

}  // namespace

Tensor coil_expand(Tensor x, Tensor sensitivities) {
  const char* op = "coil_expand";
  check_complex(op, "x", x, 4);
  const MriShape s = check_coils(op, x, sensitivities, x.size(0), x.size(1), x.size(2));
  const CurrentStream stream(x);
  Tensor out = empty(x, {s.items, s.coils, s.height, s.width, 2});
  if (out.numel() == 0) return out;
  Alignment alignment;
  alignment.pointer(x.const_data_ptr()).pointer(sensitivities.const_data_ptr());
  with_access(x, s.height * s.width, alignment, [&](auto type, auto width) {
    using S = typename decltype(type)::type;
    constexpr int N = decltype(width)::value;
    const auto a = coil_args<S>(s, x, sensitivities, out);
    const dim3 grid(blocks(op, divide_up(a.size, kThreads * Complexes<S, N>::kElements)),
                    grid_yz(divide_up(s.coils, kCoilGroup)), grid_yz(s.items));
    AMSTEL_LAUNCH((coil_expand_kernel<S, N>), grid, kThreads, 0, stream, a);
    check_launch(op);
  });
  return out;
}

Tensor coil_reduce(Tensor images, Tensor sensitivities, OptionalTensor minus, OptionalTensor scale,
                   double factor) {
  const char* op = "coil_reduce";
  check_complex(op, "images", images, 5);
  const MriShape s =
      check_coils(op, images, sensitivities, images.size(0), images.size(2), images.size(3));
  check_complex_like(op, "images", images, images, {s.items, s.coils, s.height, s.width, 2});
  if (minus) check_complex_like(op, "minus", images, *minus, {s.items, s.height, s.width, 2});
  check_scale(op, images, scale, s.items);
  const CurrentStream stream(images);
  Tensor out = empty(images, {s.items, s.height, s.width, 2});
  if (out.numel() == 0) return out;
  Alignment alignment;
  alignment.pointer(images.const_data_ptr()).pointer(sensitivities.const_data_ptr());
  alignment.pointer(pointer(minus));
  with_access(images, s.height * s.width, alignment, [&](auto type, auto width) {
    using S = typename decltype(type)::type;
    constexpr int N = decltype(width)::value;
    auto a = coil_args<S>(s, images, sensitivities, out);
    a.minus = data<S>(minus);
    a.scale = data<S>(scale);
    a.factor = factor;
    const dim3 grid(blocks(op, divide_up(a.size, kThreads * Complexes<S, N>::kElements)), 1,
                    grid_yz(s.items));
    AMSTEL_LAUNCH((coil_reduce_kernel<S, N>), grid, kThreads, 0, stream, a);
    check_launch(op);
  });
  return out;
}

void kspace_residual(Tensor k, Tensor mask, OptionalTensor minus, double factor) {
  const char* op = "kspace_residual";
  check_complex(op, "k", k, 5);
  const MriShape s{k.size(0), k.size(1), k.size(2), k.size(3), false};
  if (minus) check_complex_like(op, "minus", k, *minus, {s.items, s.coils, s.height, s.width, 2});
  const MaskShape m = check_mask(op, k, mask, s);
  if (k.numel() == 0) return;
  const CurrentStream stream(k);
  Alignment alignment;  // the mask is half as wide
  alignment.pointer(k.const_data_ptr()).pointer(pointer(minus));
  alignment.bytes(static_cast<int64_t>(reinterpret_cast<uintptr_t>(mask.const_data_ptr()) * 2));
  with_access(k, s.width, alignment, [&](auto type, auto width) {
    using S = typename decltype(type)::type;
    constexpr int N = decltype(width)::value;
    const KspaceArgs<S> a{.k = mutable_data<S>(k),
                          .minus = data<S>(minus),
                          .mask = data<S>(mask),
                          .items = s.items,
                          .coils = s.coils,
                          .height = s.height,
                          .width = s.width,
                          .of_item = m.shared ? 0 : s.height * s.width,
                          .of_row = m.columns ? 0 : s.width,
                          .factor = static_cast<S>(factor)};
    unsigned lanes = 1;
    while (lanes * Complexes<S, N>::kCount < s.width && lanes < 32) lanes *= 2;
    const dim3 block(lanes, kThreads / lanes);
    const dim3 grid(blocks(op, divide_up(s.height, block.y)), grid_yz(s.coils), grid_yz(s.items));
    AMSTEL_LAUNCH((kspace_residual_kernel<S, N>), grid, block, 0, stream, a);
    check_launch(op);
  });
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("coil_expand", TORCH_BOX(&amstel::cuda::coil_expand));
  m.impl("coil_reduce", TORCH_BOX(&amstel::cuda::coil_reduce));
  m.impl("kspace_residual", TORCH_BOX(&amstel::cuda::kspace_residual));
}
