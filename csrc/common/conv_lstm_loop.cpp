// conv_lstm and conv_lstm_cell where no Python is: a C++ program that loads this library and runs
// an exported model. They are put together from PyTorch's convolutions and the operators of this
// library, so that one source serves every device. With Python the kernels of
// python/amstel/ops/_conv_lstm.py go first, which also keep what a gradient needs.
#include <algorithm>
#include <cmath>

#include "common/calls.h"
#include "common/conv_lstm_check.h"
#include "common/conv_lstm_steps.h"

namespace amstel {
namespace {

using torch::headeronly::MemoryFormat;

constexpr double kLarge = 16;  // as LARGE in _conv_lstm.py says

// What nobody asks a gradient of: there is none here, as there is none of the other operators
// without Python.
Tensor detached(const Tensor& t) { return call("aten::detach", "", t); }
OptionalTensor detached(const OptionalTensor& t) {
  return t ? OptionalTensor(detached(*t)) : std::nullopt;
}

double number(const Tensor& t) {
  const Tensor wide = torch::stable::to(t, ScalarType::Double);
  return *static_cast<const double*>(wide.const_data_ptr());
}

// The largest magnitude on the CPU; NaN or infinity if there is any.
double largest(const OptionalTensor& t) {
  if (!t || t->numel() == 0) return 0;
  const auto ends = dispatch("aten::aminmax", "", *t, std::optional<int64_t>(), false);
  const double low = number(taken(ends[0])), high = number(taken(ends[1]));
  return std::isnan(low) ? low : std::max(-low, high);
}

// Whether the processor multiplies a short type, as MULTIPLIED in _conv_lstm.py says: PyTorch's
// convolutions take up to 13 times as long as in float32 without.
bool multiplied([[maybe_unused]] ScalarType dtype) {
#if defined(__x86_64__)
  if (dtype == ScalarType::BFloat16) return __builtin_cpu_supports("avx512bf16");
  if (dtype == ScalarType::Half) return __builtin_cpu_supports("avx512fp16");
#endif
  return dtype == ScalarType::Float || dtype == ScalarType::Double;
}

// The gates of all x, contiguous [n, H, W, C_in]; an even kernel pads one more below and to the
// right.
Tensor input_gates(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                   int64_t dilation, bool same) {
  Sizes padding, odd;
  for (const int64_t d : {2, 3}) {
    const int64_t total = same ? dilation * (weight.size(d) - 1) : 0;
    padding.push_back(total / 2);
    odd.push_back(total % 2);
  }
  Tensor padded = x;
  if (odd[0] || odd[1])
    padded = torch::stable::pad(x, Sizes{0, 0, 0, odd[1], 0, odd[0]}, "constant", 0.0);
  return last(call("aten::convolution", "", first(padded), weight, bias, Sizes{1, 1}, padding,
                   Sizes{dilation, dilation}, false, Sizes{0, 0}, int64_t{1}));
}

void check_floats(const char* op, const char* name, const Tensor& t, const Sizes& sizes,
                  ScalarType dtype, const Tensor& like) {
  bool right = t.scalar_type() == dtype && t.dim() == static_cast<int64_t>(sizes.size());
  for (int64_t d = 0; right && d < t.dim(); ++d) right = t.size(d) == sizes[d];
  std::ostringstream wanted;
  for (const int64_t& size : sizes) wanted << (&size != sizes.data() ? ", " : "") << size;
  AMSTEL_CHECK(right, op, ": `", name, "` must be ", torch::headeronly::toString(dtype), " [",
               wanted.str(), "], got ", describe(t));
  check_same_device(op, like, name, t);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> conv_lstm(Tensor x, Tensor weight_ih, Tensor weight_hh,
                                             OptionalTensor bias, OptionalTensor h0,
                                             OptionalTensor c0, OptionalTensor mask,
                                             OptionalTensor peephole, int64_t dilation,
                                             std::string padding, std::string algorithm,
                                             std::string keep) {
  const char* op = "conv_lstm";
  const bool whole = keep == "output", same = padding == "same";
  AMSTEL_CHECK(whole || keep == "last", op,
               ": `keep` must be \"output\" or \"last\" without Python, got \"", keep, "\"");
  AMSTEL_CHECK(same || padding == "valid", op, ": `padding` must be 'same' or 'valid', got '",
               padding, "'");
  AMSTEL_CHECK(dilation >= 1, op, ": `dilation` must be an integer >= 1, got ", dilation);
  const ScalarType dtype = x.scalar_type(), sum = sum_dtype(dtype);
  AMSTEL_CHECK(x.dim() == 5 && is_float(dtype) && x.size(0) > 0, op,
               ": `x` must be floating-point [T >= 1, N, C_in, H, W], got ", describe(x));
  AMSTEL_CHECK(weight_hh.dim() == 4 && weight_hh.size(0) == 4 * weight_hh.size(1), op,
               ": `weight_hh` must be [4C, C, k, k], got ", describe(weight_hh));
  AMSTEL_CHECK(weight_ih.dim() == 4, op, ": `weight_ih` must be [4C, C_in, k, k], got ",
               describe(weight_ih));
  const int64_t steps = x.size(0), items = x.size(1), inputs = x.size(2);
  const int64_t hidden = weight_hh.size(1), gates = 4 * hidden;
  const int64_t kernel[2] = {weight_ih.size(2), weight_ih.size(3)};
  int64_t size[2] = {x.size(3), x.size(4)};
  for (int d = 0; d < 2 && !same; ++d) size[d] -= dilation * (kernel[d] - 1);
  AMSTEL_CHECK(size[0] >= 0 && size[1] >= 0, op, ": `x` is smaller than `weight_ih`, got ",
               describe(x));
  check_floats(op, "weight_ih", weight_ih, {gates, inputs, kernel[0], kernel[1]}, dtype, x);
  check_floats(op, "weight_hh", weight_hh, {gates, hidden, weight_hh.size(2), weight_hh.size(3)},
               dtype, x);
  const Sizes state{items, hidden, size[0], size[1]};
  if (bias) check_floats(op, "bias", *bias, {gates}, dtype, x);
  if (h0) check_floats(op, "h", *h0, state, dtype, x);
  if (c0) check_floats(op, "c", *c0, state, sum, x);
  if (mask) check_floats(op, "mask", *mask, {steps, items}, ScalarType::Bool, x);
  if (peephole) check_floats(op, "peephole", *peephole, {3, hidden}, peephole->scalar_type(), x);

  x = detached(x), weight_ih = detached(weight_ih), weight_hh = detached(weight_hh);
  bias = detached(bias), h0 = detached(h0), c0 = detached(c0);
  if (peephole) peephole = torch::stable::contiguous(torch::stable::to(detached(*peephole), sum));

  // Winograd's algorithm where _conv_lstm.py has it, but for bfloat16, and for the recurrent
  // convolution alone unless x may join in.
  const auto three = [](const Tensor& w) { return w.size(2) == 3 && w.size(3) == 3; };
  const bool forced = algorithm == "winograd";
  bool winograd =
      forced || (algorithm == "auto" && x.is_cpu() && three(weight_hh) && dilation == 1 &&
                 hidden >= 8 && (dtype == ScalarType::Float || dtype == ScalarType::Half));
  bool join = false;
  if (winograd) {
    const double large = std::max(largest(x), largest(h0)), before = largest(h0);
    const bool finite = std::isfinite(large + largest(x) + largest(c0));
    winograd = forced || (finite && before <= kLarge);
    join = winograd && three(weight_ih) && same && (forced || (finite && large <= kLarge));
  }

  const Tensor xs = last(x);
  const auto frames = [&](int64_t count, int64_t channels, ScalarType type) {
    return empty(x, {count, items, size[0], size[1], channels}, type);
  };
  Tensor h = frames(whole ? steps + 1 : 2, hidden, dtype), c = frames(1, hidden, sum);
  const auto begin = [](const OptionalTensor& from, Tensor to) {
    if (from)
      torch::stable::copy_(to, last(*from));
    else
      torch::stable::zero_(to);
  };
  begin(h0, at(h, 0));
  begin(c0, at(c, 0));

  OptionalTensor wide_bias, packed;
  if (winograd) {
    Tensor weight = weight_hh;
    if (join) weight = call("aten::cat", "", std::vector<Tensor>{weight_hh, weight_ih}, int64_t{1});
    weight = torch::stable::contiguous(torch::stable::to(weight, ScalarType::Float));
    packed = call("amstel::winograd_weight", "", weight, false, true);
    if (bias) wide_bias = torch::stable::contiguous(torch::stable::to(*bias, ScalarType::Float));
  }
  const ScalarType inside = x.is_cpu() && !multiplied(dtype) ? ScalarType::Float : dtype;
  const auto channels_last = [inside](const Tensor& w) {
    return torch::stable::contiguous(torch::stable::to(w, inside), MemoryFormat::ChannelsLast);
  };
  const Tensor weight = winograd ? *packed : channels_last(weight_hh);

  // The gates of the input, of as many steps at once as 16 MB hold (on CUDA 256).
  const int64_t pixels = items * size[0] * size[1];
  const int64_t bytes = pixels * gates * static_cast<int64_t>(x.element_size());
  const int64_t most = join ? steps : (x.is_cpu() ? 1 << 24 : 1 << 28) / (bytes + 1);
  const int64_t chunk = std::clamp<int64_t>(most, 1, steps);
  for (int64_t t = 0; t < steps; t += chunk) {
    const int64_t count = std::min(chunk, steps - t);
    const Tensor some = part(xs, 0, t, count);
    OptionalTensor joined, hoisted, on;
    if (join) {
      joined = some;
    } else {
      const Tensor flat = as(some, {count * items, x.size(3), x.size(4), inputs});
      OptionalTensor beside = bias;
      if (bias) beside = torch::stable::to(*bias, inside);
      const Tensor all = input_gates(torch::stable::to(flat, inside), channels_last(weight_ih),
                                     beside, dilation, same);
      hoisted = as(torch::stable::to(all, dtype), {count, items, size[0], size[1], gates});
    }
    if (mask) on = part(*mask, 0, t, count);
    conv_lstm_steps(h, c, joined, hoisted, weight, join ? wide_bias : std::nullopt, on, peephole,
                    std::nullopt, {weight_hh.size(2), weight_hh.size(3)}, dilation, t);
  }
  // The frame before the last one is not part of the result.
  if (!whole) h = torch::stable::clone(part(h, 0, steps % 2, 1));
  return {h, c, frames(0, gates, dtype)};
}

std::tuple<Tensor, Tensor> conv_lstm_cell(Tensor gates, Tensor c, OptionalTensor peephole) {
  const char* op = "conv_lstm_cell";
  const ScalarType dtype = gates.scalar_type(), sum = sum_dtype(dtype);
  AMSTEL_CHECK(gates.dim() == 4 && gates.size(1) % 4 == 0 && is_float(dtype), op,
               ": `gates` must be floating-point [N, 4C, H, W], got ", describe(gates));
  const int64_t n = gates.size(0), hidden = gates.size(1) / 4;
  const int64_t height = gates.size(2), width = gates.size(3);
  const bool narrow = c.scalar_type() == dtype && !gates.is_cpu();
  check_floats(op, "c", c, {n, hidden, height, width}, narrow ? dtype : sum, gates);
  if (peephole)
    check_floats(op, "peephole", *peephole, {3, hidden}, peephole->scalar_type(), gates);
  // Laid out as the gates: of a contiguous tensor an image is a row, of another one a pixel.
  const bool images = gates.is_contiguous();
  gates = detached(gates), c = detached(c);
  if (!images) gates = last(gates), c = last(c);
  c = torch::stable::contiguous(c);
  const int64_t pixels = height * width, count = images ? n : n * pixels;
  const int64_t inner = images ? hidden * pixels : hidden;
  if (peephole) {
    Tensor weights = torch::stable::to(detached(*peephole), sum);
    if (images) {
      weights =
          call("aten::expand", "", as(weights, {3, hidden, 1}), Sizes{3, hidden, pixels}, false);
      weights = torch::stable::reshape(weights, Sizes{3, inner});
    }
    peephole = torch::stable::contiguous(weights);
  }
  Tensor h = empty(c, {count, inner}, dtype), c_out = empty(c, {count, inner}, c.scalar_type());
  dispatch("amstel::conv_lstm_gates", "", as(gates, {count, 4 * inner}), OptionalTensor(),
           as(c, {count, inner}), peephole, h, c_out, OptionalTensor());
  const auto shaped = [&](const Tensor& t) {
    if (images) return as(t, {n, hidden, height, width});
    return call("aten::permute", "", as(t, {n, height, width, hidden}), Sizes{0, 3, 1, 2});
  };
  return {shaped(h), shaped(c_out)};
}

}  // namespace amstel

// Behind the kernels of every device, which Python registers.
STABLE_TORCH_LIBRARY_IMPL(amstel, CompositeExplicitAutograd, m) {
  m.impl("conv_lstm", TORCH_BOX(&amstel::conv_lstm));
  m.impl("conv_lstm_cell", TORCH_BOX(&amstel::conv_lstm_cell));
}
