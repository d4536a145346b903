// The input of a RIM's network and bicubic resampling on CUDA: check, allocate, launch.  The
// kernels and how their threads share the work are in kernels/rim*.cuh, the meaning of the
// arguments in library.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "common/rim_check.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/rim.cuh"
#include "cuda/kernels/rim_input.cuh"

namespace amstel::cuda {
namespace {

static_assert(kLargestScale == kMaxBicubicScale && 4 * kLargestScale <= kThreads);

template <class S>
Planes<const S> planes(const char* op, const char* name, const Tensor& t) {
  const PlaneStrides s = plane_strides(op, name, t);
  return {data<S>(t), s.item, s.channel, s.pixel};
}

template <class T>
RimInputArgs<T> input_args(const char* op, const Tensor& eta, const Tensor& other,
                           const OptionalTensor& mask, const OptionalTensor& precision,
                           double factor, bool residual, bool logistic) {
  using S = Accumulate<T>;
  RimInputArgs<T> a{};
  a.eta = planes<S>(op, "eta", eta);
  a.other = planes<S>(op, "other", other);
  if (mask) a.mask = planes<S>(op, "mask", *mask);
  a.precision = data<S>(precision);
  a.factor = factor;
  a.residual = residual;
  a.logistic = logistic;
  a.items = eta.size(0);
  a.channels = eta.size(1);
  a.pixels = eta.size(2) * eta.size(3);
  return a;
}

// Whether an image's numbers lie side by side, pixel by pixel, and what its beginnings are
// multiples of.
template <class S, class P>
bool dense(const RimInputArgs<S>& a, const P& p, Alignment& alignment) {
  using Element = std::remove_reference_t<decltype(*p.data)>;
  alignment.pointer(p.data);
  if (a.items > 1) alignment.bytes(p.item * static_cast<int64_t>(sizeof(Element)));
  return (a.channels == 1 || p.channel == 1) && (a.pixels == 1 || p.pixel == a.channels);
}

// Pixels of a tile that a block turns around in shared memory: fewer where images are small, so
// that there are blocks enough; 0 where those of its least tile do not fit.
template <class T>
int64_t tile_of(const RimInputArgs<T>& a) {
  constexpr int64_t kShared = 24 << 10, kLeast = kThreads, kBlocks = 512;
  const int64_t pixel = 2 * a.channels * static_cast<int64_t>(sizeof(T));
  if (kLeast * pixel > 2 * kShared) return 0;
  int64_t tile = kPixelsAhead * kThreads;
  while (tile > kLeast && (tile * pixel > kShared || a.items * divide_up(a.pixels, tile) < kBlocks))
    tile /= 2;
  return tile;
}

// dense_kernel(Int<C>{}, grid), planes_kernel(args, grid, shared) or strided_kernel(grid, block);
// `rows`: the network's side.
template <class T, class Dense, class InPlanes, class Strided>
void launch(const char* op, RimInputArgs<T> a, const T* rows, const Dense& dense_kernel,
            const InPlanes& planes_kernel, const Strided& strided_kernel) {
  const int64_t size = a.channels * a.pixels;
  Alignment network, alignment;
  network.pointer(rows);
  if (a.items > 1) network.bytes(2 * size * static_cast<int64_t>(sizeof(T)));
  bool all = a.channels <= 2 && dense(a, a.eta, alignment) && dense(a, a.other, alignment);
  if (a.mask.data) all = dense(a, a.mask, alignment) && all;
  if (a.grad) {
    all = dense(a, a.grad_eta, alignment) && all;
    alignment.pointer(a.grad_other);
  }
  const bool planes = a.pixels == 1 || (a.eta.pixel == 1 && a.other.pixel == 1 &&
                                        (!a.grad || a.grad_eta.pixel == 1));
  a.tile = planes ? tile_of(a) : 0;
  a.aligned = network.allows(16);
  if (all && alignment.allows(16) && network.allows(16)) {
    const auto launch_dense = [&](auto channels) {
      constexpr int64_t kNumbers = kThreads * kDenseWidth<T, decltype(channels)::value>;
      dense_kernel(channels, dim3(blocks(op, divide_up(size, kNumbers)), grid_yz(a.items)));
    };
    a.channels == 1 ? launch_dense(Int<1>{}) : launch_dense(Int<2>{});
  } else if (a.tile) {
    const dim3 grid(blocks(op, divide_up(a.pixels, a.tile)), grid_yz(a.items));
    planes_kernel(a, grid, static_cast<size_t>(a.tile * 2 * a.channels) * sizeof(T));
  } else {
    unsigned lanes = 1;
    while (lanes < a.channels && lanes < 32) lanes *= 2;
    const dim3 block(lanes, kThreads / lanes);
    strided_kernel(dim3(blocks(op, divide_up(a.pixels, block.y)), grid_yz(a.items)), block);
  }
  check_launch(op);
}

template <class S>
BicubicArgs<S> bicubic_args(const Tensor& in, int64_t scale, int64_t height, int64_t width) {
  BicubicArgs<S> a{};
  a.in = data<S>(in);
  a.items = in.size(0) * in.size(1);
  a.channels = 1;
  a.height = height;
  a.width = width;
  a.scale = scale;
  a.first = BicubicWeights(scale).first;
  for (int64_t k = 0; k < 4 * scale; ++k) a.sum += cubic_weight(a.first, scale, k);
  return a;
}

template <class T, bool kInput>
void run_up(const char* op, const CurrentStream& stream, const BicubicInputArgs<T>& a) {
  const dim3 grid(blocks(op, divide_up(a.up.width * a.up.scale, kUpCols)),
                  grid_yz(divide_up(a.up.height * a.up.scale, kUpRows)), grid_yz(a.up.items));
  AMSTEL_LAUNCH((bicubic_up_kernel<T, kInput>), grid, kThreads, 0, stream, a);
  check_launch(op);
}

// f(Type<S>{}); the dtype has been checked.
template <class F>
void with_real(ScalarType t, const F& f) {
  t == ScalarType::Double ? f(Type<double>{}) : f(Type<float>{});
}

}  // namespace

Tensor rim_input(Tensor eta, Tensor other, OptionalTensor mask, OptionalTensor precision,
                 double factor, bool residual, bool logistic, ScalarType dtype) {
  const char* op = "rim_input";
  check_rim_input(op, eta, other, mask, precision, residual);
  check_output(op, eta, dtype);
  const CurrentStream stream(eta);
  Tensor out = empty(eta, {eta.size(0), 2 * eta.size(1), eta.size(2), eta.size(3)}, dtype, true);
  if (out.numel() == 0) return out;
  with_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    auto a = input_args<T>(op, eta, other, mask, precision, factor, residual, logistic);
    a.out = mutable_data<T>(out);
    launch(
        op, a, a.out,
        [&](auto channels, const dim3& grid) {
          AMSTEL_LAUNCH((rim_input_kernel<T, decltype(channels)::value>), grid, kThreads, 0, stream,
                        a);
        },
        [&](const RimInputArgs<T>& tiled, const dim3& grid, size_t shared) {
          AMSTEL_LAUNCH((rim_input_planes_kernel<T, false>), grid, kThreads, shared, stream, tiled);
        },
        [&](const dim3& grid, const dim3& block) {
          AMSTEL_LAUNCH((rim_input_strided_kernel<T, false>), grid, block, 0, stream, a);
        });
  });
  return out;
}

std::tuple<Tensor, Tensor> rim_input_grad(Tensor grad, Tensor eta, Tensor other,
                                          OptionalTensor mask, OptionalTensor precision,
                                          double factor, bool residual, bool logistic) {
  const char* op = "rim_input_grad";
  check_rim_input(op, eta, other, mask, precision, residual);
  check_output(op, eta, grad.scalar_type());
  check_rim_grad(op, eta, grad);
  const CurrentStream stream(eta);
  const Tensor rows =
      torch::stable::contiguous(grad, torch::headeronly::MemoryFormat::ChannelsLast);
  const int64_t pixel = plane_strides(op, "eta", eta).pixel;
  const auto result = [&] {
    return empty(eta, {eta.size(0), eta.size(1), eta.size(2), eta.size(3)}, eta.scalar_type(),
                 pixel != 1 && pixel == eta.size(1));
  };
  Tensor grad_eta = result(), grad_other = result();
  if (eta.numel() == 0) return {grad_eta, grad_other};
  with_float(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    auto a = input_args<T>(op, eta, other, mask, precision, factor, residual, logistic);
    const PlaneStrides s = plane_strides(op, "eta", grad_eta);
    a.grad = data<T>(rows);
    a.grad_eta = {mutable_data<S>(grad_eta), s.item, s.channel, s.pixel};
    a.grad_other = mutable_data<S>(grad_other);
    launch(
        op, a, a.grad,
        [&](auto channels, const dim3& grid) {
          AMSTEL_LAUNCH((rim_input_grad_kernel<T, decltype(channels)::value>), grid, kThreads, 0,
                        stream, a);
        },
        [&](const RimInputArgs<T>& tiled, const dim3& grid, size_t shared) {
          AMSTEL_LAUNCH((rim_input_planes_kernel<T, true>), grid, kThreads, shared, stream, tiled);
        },
        [&](const dim3& grid, const dim3& block) {
          AMSTEL_LAUNCH((rim_input_strided_kernel<T, true>), grid, block, 0, stream, a);
        });
  });
  return {grad_eta, grad_other};
}

Tensor bicubic_down(Tensor x, OptionalTensor minus, int64_t scale) {
  const char* op = "bicubic_down";
  check_bicubic(op, "x", x, scale);
  AMSTEL_CHECK(x.size(2) % scale == 0 && x.size(3) % scale == 0, op,
               ": `x` must be of height and width that are multiples of the scale ", scale,
               ", got ", describe(x));
  const int64_t height = x.size(2) / scale, width = x.size(3) / scale;
  const CurrentStream stream(x);
  Tensor out = empty(x, {x.size(0), x.size(1), height, width});
  if (minus) {
    check_like(op, "minus", out, *minus);
    AMSTEL_CHECK(minus->is_contiguous(), op, ": `minus` must be contiguous");
  }
  if (out.numel() == 0) return out;
  with_real(x.scalar_type(), [&](auto type) {
    using S = typename decltype(type)::type;
    auto a = bicubic_args<S>(x, scale, height, width);
    a.minus = data<S>(minus);
    a.out = mutable_data<S>(out);
    // A column of the large image for each thread, in strips where the image is narrower.
    a.cols = std::min(width, std::max<int64_t>(1, kThreads / scale - 3));
    a.strips = std::max<int64_t>(1, kThreads / ((a.cols + 3) * scale));
    a.strips = std::min(a.strips, divide_up(height, kStripRows));
    a.pitch = (a.cols + 3) | 1;
    const int64_t rows = a.strips * kStripRows;
    const auto shared = static_cast<size_t>(4 * scale + rows * scale * a.pitch) * sizeof(S);
    const dim3 grid(blocks(op, divide_up(width, a.cols)), grid_yz(divide_up(height, rows)),
                    grid_yz(a.items));
    AMSTEL_LAUNCH((bicubic_down_kernel<S>), grid, kThreads, shared, stream, a);
    check_launch(op);
  });
  return out;
}

Tensor bicubic_up(Tensor y, int64_t scale) {
  const char* op = "bicubic_up";
  check_bicubic(op, "y", y, scale);
  const CurrentStream stream(y);
  Tensor out = empty(y, {y.size(0), y.size(1), y.size(2) * scale, y.size(3) * scale});
  if (out.numel() == 0) return out;
  with_real(y.scalar_type(), [&](auto type) {
    using S = typename decltype(type)::type;
    BicubicInputArgs<S> a{};
    a.up = bicubic_args<S>(y, scale, y.size(2), y.size(3));
    a.up.out = mutable_data<S>(out);
    run_up<S, false>(op, stream, a);
  });
  return out;
}

Tensor rim_bicubic_input(Tensor eta, Tensor residual, OptionalTensor precision, double factor,
                         int64_t scale, bool logistic, ScalarType dtype) {
  const char* op = "rim_bicubic_input";
  check_rim_bicubic(op, eta, residual, precision, scale, dtype);
  const CurrentStream stream(eta);
  Tensor out = empty(eta, {eta.size(0), 2 * eta.size(1), eta.size(2), eta.size(3)}, dtype, true);
  if (out.numel() == 0) return out;
  with_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    BicubicInputArgs<T> a{};
    a.up = bicubic_args<S>(residual, scale, residual.size(2), residual.size(3));
    a.up.items = eta.size(0);
    a.up.channels = eta.size(1);
    a.eta = data<S>(eta);
    a.precision = data<S>(precision);
    a.factor = factor;
    a.logistic = logistic;
    a.out = mutable_data<T>(out);
    run_up<T, true>(op, stream, a);
  });
  return out;
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("rim_input", TORCH_BOX(&amstel::cuda::rim_input));
  m.impl("rim_input_grad", TORCH_BOX(&amstel::cuda::rim_input_grad));
  m.impl("bicubic_down", TORCH_BOX(&amstel::cuda::bicubic_down));
  m.impl("bicubic_up", TORCH_BOX(&amstel::cuda::bicubic_up));
  m.impl("rim_bicubic_input", TORCH_BOX(&amstel::cuda::rim_bicubic_input));
}
