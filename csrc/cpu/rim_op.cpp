// The input of a RIM's network and bicubic resampling on the CPU: check, allocate, run threads. The
// arithmetic is in kernels/rim.inl.h, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "common/rim_check.h"
#include "common/rows.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/huge_pages.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace amstel::cpu {
namespace {

Planes planes(const char* op, const char* name, const Tensor& t) {
  const PlaneStrides s = plane_strides(op, name, t);
  return {t.const_data_ptr(), s.item, s.channel, s.pixel};
}

RimInputArgs input_args(const char* op, const Tensor& eta, const Tensor& other,
                        const OptionalTensor& mask, const OptionalTensor& precision, double factor,
                        bool residual, bool logistic) {
  check_rim_input(op, eta, other, mask, precision, residual);
  RimInputArgs a{};
  a.eta = planes(op, "eta", eta);
  a.other = planes(op, "other", other);
  if (mask) a.mask = planes(op, "mask", *mask);
  a.precision = pointer(precision);
  a.factor = factor;
  a.residual = residual;
  a.logistic = logistic;
  a.channels = eta.size(1);
  a.pixels = eta.size(2) * eta.size(3);
  return a;
}

template <class Kernel>
void run_tiles(Kernel kernel, const RimInputArgs& a, int64_t items) {
  const int64_t tiles = items * divide_up(a.pixels, kRimTile);
  const int64_t parts = threads_for(items * a.channels * a.pixels * (a.logistic ? 64 : 16));
  parallel_parts(parts, [&](int64_t p) { kernel(a, tiles * p / parts, tiles * (p + 1) / parts); });
}

static_assert(kMaxBicubicScale == kMaxScale);

// The weights of resampling in the dtype of the image.
template <class S>
std::vector<S> cast(const std::vector<double>& from) {
  return {from.begin(), from.end()};
}

BicubicArgs bicubic_args(const Tensor& in, int64_t scale, int64_t height, int64_t width) {
  BicubicArgs a{};
  a.in = in.const_data_ptr();
  a.scale = scale;
  a.height = height;
  a.width = width;
  a.factor = 1;
  return a;
}

// Runs the kernel of the dtype of `in`, of type S, on every row or block of rows.
template <class S, class F>
void run_bicubic(BicubicArgs a, const Tensor& like, int64_t planes, bool up, const F& kernel) {
  const BicubicWeights down(a.scale);
  const auto weight = cast<S>(down.weight);
  a.weight = weight.data();
  a.first = down.first;
  int64_t tasks = planes * a.height, lines = 0;
  std::vector<S> line_weight;
  const BicubicAdjoint adjoint(down, up ? a.height : 0, a.scale);
  if (up) {
    // A block of rows of the larger image repeats the work of its few neighbors in the smaller.
    a.block = a.scale * std::max<int64_t>(1, 32 / a.scale);
    tasks = planes * divide_up(a.height * a.scale, a.block);
    lines = a.block / a.scale + 8;
    line_weight = cast<S>(adjoint.weight);
    a.start = adjoint.start.data();
    a.line = adjoint.line.data();
    a.line_weight = line_weight.data();
  }
  const int64_t large = a.width * a.scale;
  // Room of a thread: phases, rows and the lines of a block (kernels/rim.inl.h), with room for
  // vectors that run over.
  const int64_t room = (a.scale + 1) * (bicubic_phase(a.width) + 32) + (lines + 1) * (large + 16);
  const int64_t parts =
      std::min(tasks, threads_for(planes * a.height * a.scale * large * 4 * int64_t{sizeof(S)}));
  if (!parts) return;
  Tensor scratch = empty(like, {parts, room}, like.scalar_type());
  S* const rooms = mutable_data<S>(scratch);
  parallel_parts(parts, [&](int64_t p) {
    kernel(a, rooms + p * room, tasks * p / parts, tasks * (p + 1) / parts);
  });
}

}  // namespace

Tensor rim_input(Tensor eta, Tensor other, OptionalTensor mask, OptionalTensor precision,
                 double factor, bool residual, bool logistic, ScalarType dtype) {
  RimInputArgs a = input_args("rim_input", eta, other, mask, precision, factor, residual, logistic);
  check_output("rim_input", eta, dtype);
  Tensor out = empty(eta, {eta.size(0), 2 * eta.size(1), eta.size(2), eta.size(3)}, dtype, true);
  want_huge_pages(out);
  a.out = out.mutable_data_ptr();
  if (out.numel()) run_tiles(kernels().rim_input[dtype_index(dtype)], a, eta.size(0));
  return out;
}

std::tuple<Tensor, Tensor> rim_input_grad(Tensor grad, Tensor eta, Tensor other,
                                          OptionalTensor mask, OptionalTensor precision,
                                          double factor, bool residual, bool logistic) {
  const char* op = "rim_input_grad";
  RimInputArgs a = input_args(op, eta, other, mask, precision, factor, residual, logistic);
  check_output(op, eta, grad.scalar_type());
  check_rim_grad(op, eta, grad);
  Tensor rows = torch::stable::contiguous(grad, torch::headeronly::MemoryFormat::ChannelsLast);
  const bool last = a.eta.pixel != 1 && a.eta.pixel == eta.size(1);
  const auto result = [&] {
    return empty(eta, {eta.size(0), eta.size(1), eta.size(2), eta.size(3)}, eta.scalar_type(),
                 last);
  };
  Tensor grad_eta = result(), grad_other = result();
  a.grad = rows.const_data_ptr();
  a.result = planes(op, "eta", grad_eta);
  a.grad_eta = grad_eta.mutable_data_ptr();
  a.grad_other = grad_other.mutable_data_ptr();
  if (eta.numel())
    run_tiles(kernels().rim_input_grad[dtype_index(grad.scalar_type())], a, eta.size(0));
  return {grad_eta, grad_other};
}

Tensor bicubic_down(Tensor x, OptionalTensor minus, int64_t scale) {
  const char* op = "bicubic_down";
  check_bicubic(op, "x", x, scale);
  AMSTEL_CHECK(x.size(2) % scale == 0 && x.size(3) % scale == 0, op,
               ": `x` must be of height and width that are multiples of the scale ", scale,
               ", got ", describe(x));
  const int64_t height = x.size(2) / scale, width = x.size(3) / scale;
  Tensor out = empty(x, {x.size(0), x.size(1), height, width});
  if (minus) {
    check_like(op, "minus", out, *minus);
    AMSTEL_CHECK(minus->is_contiguous(), op, ": `minus` must be contiguous");
  }
  if (!out.numel()) return out;
  BicubicArgs a = bicubic_args(x, scale, height, width);
  a.minus = pointer(minus);
  a.out = out.mutable_data_ptr();
  const int64_t planes = x.size(0) * x.size(1);
  if (x.scalar_type() == ScalarType::Double)
    run_bicubic<double>(a, x, planes, false, kernels().bicubic_down[kDouble]);
  else
    run_bicubic<float>(a, x, planes, false, kernels().bicubic_down[kFloat]);
  return out;
}

Tensor bicubic_up(Tensor y, int64_t scale) {
  check_bicubic("bicubic_up", "y", y, scale);
  Tensor out = empty(y, {y.size(0), y.size(1), y.size(2) * scale, y.size(3) * scale});
  want_huge_pages(out);
  if (!out.numel()) return out;
  BicubicArgs a = bicubic_args(y, scale, y.size(2), y.size(3));
  a.out = out.mutable_data_ptr();
  const int64_t planes = y.size(0) * y.size(1);
  if (y.scalar_type() == ScalarType::Double)
    run_bicubic<double>(a, y, planes, true, kernels().bicubic_up[kDouble]);
  else
    run_bicubic<float>(a, y, planes, true, kernels().bicubic_up[kFloat]);
  return out;
}

Tensor rim_bicubic_input(Tensor eta, Tensor residual, OptionalTensor precision, double factor,
                         int64_t scale, bool logistic, ScalarType dtype) {
  const char* op = "rim_bicubic_input";
  check_rim_bicubic(op, eta, residual, precision, scale, dtype);
  Tensor out = empty(eta, {eta.size(0), 2 * eta.size(1), eta.size(2), eta.size(3)}, dtype, true);
  want_huge_pages(out);
  if (!out.numel()) return out;
  BicubicArgs a = bicubic_args(residual, scale, residual.size(2), residual.size(3));
  a.out = out.mutable_data_ptr();
  a.eta = eta.const_data_ptr();
  a.precision = pointer(precision);
  a.factor = factor;
  a.logistic = logistic;
  a.channels = eta.size(1);
  const int64_t planes = eta.size(0) * eta.size(1);
  const auto kernel = kernels().bicubic_up[dtype_index(dtype)];
  if (eta.scalar_type() == ScalarType::Double)
    run_bicubic<double>(a, eta, planes, true, kernel);
  else
    run_bicubic<float>(a, eta, planes, true, kernel);
  return out;
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("rim_input", TORCH_BOX(&amstel::cpu::rim_input));
  m.impl("rim_input_grad", TORCH_BOX(&amstel::cpu::rim_input_grad));
  m.impl("bicubic_down", TORCH_BOX(&amstel::cpu::bicubic_down));
  m.impl("bicubic_up", TORCH_BOX(&amstel::cpu::bicubic_up));
  m.impl("rim_bicubic_input", TORCH_BOX(&amstel::cpu::rim_bicubic_input));
}
