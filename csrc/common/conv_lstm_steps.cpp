// conv_lstm_steps and its gradient: the steps of a ConvLSTM one after another, with no Python
// between them, put together from a recurrent convolution and the gates so that one source serves
// every device. Whoever calls prepares weights and input and divides long sequences:
// python/amstel/ops/_conv_lstm.py, or conv_lstm_loop.cpp where no Python is.
#include "common/conv_lstm_steps.h"

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "common/calls.h"

namespace amstel {
namespace {

// The recurrent convolution of contiguous [n, H, W, channels]. The dimensions of its weight say how
// it is computed: 1, packed, by Winograd's algorithm; 2, [4C, C k k], as a product with the window
// of every pixel; 3, [1, 4C, C k k], the same, but forward by oneDNN; 4, [4C, >= C, k, k], by
// PyTorch, and channels that h lacks are zero. It is computed in the dtype of the weight, which may
// be wider. An even kernel pads one more below and to the right.
class Recurrent {
 public:
  Recurrent(const char* op, Tensor given, Sizes kernel, int64_t dilation)
      : weight(std::move(given)), kernel_(std::move(kernel)), dilation_(2, dilation) {
    const int64_t dim = weight.dim();
    AMSTEL_CHECK(dim >= 1 && dim <= 4 && (dim != 3 || weight.size(0) == 1), op,
                 ": `weight` must be packed, [4C, C k k], [1, 4C, C k k] or [4C, C, k, k], got ",
                 describe(weight));
    AMSTEL_CHECK(kernel_.size() == 2 && dilation >= 1 && kernel_[0] >= 1 && kernel_[1] >= 1, op,
                 ": `kernel` must be two sizes and `dilation` a number, at least 1");
    for (const int64_t k : kernel_) {
      padding_.push_back(dilation * (k - 1) / 2);
      odd_.push_back(dilation * (k - 1) % 2);
    }
  }

  const Tensor weight;

  bool winograd() const { return weight.dim() == 1; }

  // [n, H, W, 4C]; not for Winograd's, which has the gates in its kernel.
  Tensor operator()(const Tensor& h) const {
    const int64_t n = h.size(0), height = h.size(1), width = h.size(2);
    const int64_t lacks = weight.dim() == 4 ? weight.size(1) - h.size(3) : 0;
    Tensor padded = in(weight.scalar_type(), h);
    if (lacks || odd_[0] || odd_[1])
      padded = torch::stable::pad(padded, Sizes{0, lacks, 0, odd_[1], 0, odd_[0]}, "constant", 0.0);
    if (weight.dim() == 4) {
      const Tensor y = call("aten::convolution", "", first(padded), weight, OptionalTensor(), kOnes,
                            padding_, dilation_, false, kZeros, int64_t{1});
      return in(h.scalar_type(), last(y));
    }
    const Tensor windows =
        call("aten::im2col", "", first(padded), kernel_, dilation_, padding_, kOnes);
    // Of two dimensions: for each image by itself the weights would be read again.
    const Tensor seen = torch::stable::reshape(torch::stable::transpose(windows, 1, 2),
                                               Sizes{n * height * width, weight.size(-1)});
    const Tensor rows =
        weight.dim() == 2 || seen.numel() == 0
            ? call("aten::linear", "", seen, matrix(), OptionalTensor())
            : call("mkldnn::_linear_pointwise", "", seen, matrix(), OptionalTensor(),
                   std::string("none"), std::vector<std::optional<int64_t>>{},
                   std::optional<std::string>(""));
    return in(h.scalar_type(), as(rows, {n, height, width, rows.size(1)}));
  }

  // The gradient of h [n, H, W, channels] from that of the gates.
  Tensor back(const Tensor& grad, int64_t channels) const {
    const int64_t n = grad.size(0), height = grad.size(1), width = grad.size(2);
    if (winograd()) {
      const Tensor out = empty(grad, {n, height, width, channels});
      dispatch("amstel::winograd_conv", "", grad, weight, OptionalTensor(), out);
      return out;
    }
    const Tensor wide = in(weight.scalar_type(), grad);
    Tensor found = weight.dim() < 4 ? folded(wide) : transposed(wide, channels);
    if (found.size(1) != channels) found = part(found, 1, 0, channels);
    if (odd_[0]) found = part(found, 2, 0, height);
    if (odd_[1]) found = part(found, 3, 0, width);
    return in(grad.scalar_type(), last(found));
  }

 private:
  static Tensor in(ScalarType dtype, const Tensor& t) {
    return t.scalar_type() == dtype ? t : torch::stable::to(t, dtype);
  }

  Tensor matrix() const { return as(weight, {weight.size(-2), weight.size(-1)}); }

  Tensor folded(const Tensor& grad) const {
    const Tensor rows = as(grad, {grad.size(0), grad.size(1) * grad.size(2), grad.size(3)});
    const Tensor columns = torch::stable::transpose(torch::stable::matmul(rows, matrix()), 1, 2);
    const Sizes size{grad.size(1) + odd_[0], grad.size(2) + odd_[1]};
    return call("aten::col2im", "", columns, size, kernel_, dilation_, padding_, kOnes);
  }

  Tensor transposed(const Tensor& grad, int64_t channels) const {
    const Sizes size{grad.size(0), grad.size(1) + odd_[0], grad.size(2) + odd_[1],
                     std::max(channels, weight.size(1))};
    const std::array<bool, 3> only_input{true, false, false};
    const auto found =
        dispatch("aten::convolution_backward", "", first(grad), first(shaped(grad, size)), weight,
                 std::nullopt, kOnes, padding_, dilation_, false, kZeros, int64_t{1},
                 torch::headeronly::HeaderOnlyArrayRef<bool>(only_input.data(), only_input.size()));
    const Tensor grad_input = taken(found[0]);
    taken(found[1]), taken(found[2]);  // nothing, to be released
    return grad_input;
  }

  // Something of this size, whose values do not matter. On CUDA its layout does: where it is not
  // that of the gradient, cuDNN's gradient is transposed there and back.
  static Tensor shaped(const Tensor& memory, const Sizes& size) {
    const int64_t count = size[0] * size[1] * size[2] * size[3];
    if (memory.is_cpu()) return call("aten::expand", "", empty(memory, {1}), size, false);
    const int64_t held = memory.numel();
    return as(count <= held ? part(as(memory, {held}), 0, 0, count) : empty(memory, {count}), size);
  }

  static const inline Sizes kOnes{1, 1}, kZeros{0, 0};
  Sizes kernel_, dilation_, padding_, odd_;
};

Tensor rows_of(const Tensor& t) { return as(t, {t.size(0) * t.size(1) * t.size(2), t.size(3)}); }
OptionalTensor rows_of(const OptionalTensor& t) {
  return t ? OptionalTensor(rows_of(*t)) : std::nullopt;
}

// mask[t], to be broadcast to [n, H, W, channels]
OptionalTensor on_at(const OptionalTensor& mask, int64_t t) {
  if (!mask) return std::nullopt;
  return as(torch::stable::contiguous(at(*mask, t)), {mask->size(1), 1, 1, 1});
}

Tensor where(const Tensor& on, const Tensor& yes, const Tensor& no) {
  return call("aten::where", "self", on, yes, no);
}

OptionalTensor sum_of(const OptionalTensor& a, const OptionalTensor& b) {
  if (!a || !b) return a ? a : b;
  return torch::stable::subtract(*a, *b, -1.0);
}

// Zeros where a step keeps its state, and all of t there, which goes on as it is.
std::pair<OptionalTensor, OptionalTensor> split(const OptionalTensor& on, const OptionalTensor& t) {
  if (!on || !t) return {t, std::nullopt};
  Tensor zero = empty(*t, {1});
  torch::stable::zero_(zero);
  return {where(*on, *t, zero), where(*on, zero, *t)};
}

void check_steps(const char* op, const char* name, const Tensor& t) {
  AMSTEL_CHECK(t.dim() == 5 && is_float(t.scalar_type()), op, ": `", name,
               "` must be a floating-point [steps, N, H, W, channels], got ", describe(t));
}

}  // namespace

void conv_lstm_steps(Tensor h, Tensor c, OptionalTensor x, OptionalTensor gates, Tensor weight,
                     OptionalTensor bias, OptionalTensor mask, OptionalTensor peephole,
                     OptionalTensor activated, std::vector<int64_t> kernel, int64_t dilation,
                     int64_t first) {
  const char* op = "conv_lstm_steps";
  check_steps(op, "h", h);
  check_steps(op, "c", c);
  const int64_t frames = h.size(0), cells = c.size(0), hidden = c.size(4);
  AMSTEL_CHECK(frames >= 2 && cells >= 1 && h.size(4) >= hidden && first >= 0, op,
               ": `h` must have two frames or more, `c` one, of no more channels, and `first` must "
               "not be negative, got ",
               describe(h), ", ", describe(c), " and ", first);
  const Recurrent recurrent(op, std::move(weight), std::move(kernel), dilation);
  const bool beside = h.size(4) > hidden;
  AMSTEL_CHECK(recurrent.winograd() || beside || gates, op,
               ": `gates` must be given where x does not join h");
  AMSTEL_CHECK(!gates || (gates->dim() == 5 && gates->size(4) == 4 * hidden), op,
               ": `gates` must be [steps, N, H, W, ", 4 * hidden, "], got ", describe(*gates));
  const int64_t steps = gates ? gates->size(0) : x ? x->size(0) : frames - 1;
  for (int64_t t = 0; t < steps; ++t) {
    const Tensor source = at(h, (first + t) % frames);
    Tensor target = at(h, (first + t + 1) % frames);
    if (beside) target = part(target, 3, 0, hidden);
    const Tensor c_from = at(c, cells > 1 ? t : 0);
    Tensor c_to = at(c, cells > 1 ? t + 1 : 0);
    const OptionalTensor own = at(gates, t), kept = at(activated, t), on = on_at(mask, t);
    OptionalTensor before;
    if (on) before = cells > 1 ? c_from : torch::stable::clone(c_from);
    if (recurrent.winograd()) {
      dispatch("amstel::winograd_lstm", "", source, at(x, t), recurrent.weight, own, bias, c_from,
               peephole, target, c_to, kept);
    } else {
      const Tensor y = rows_of(recurrent(source));
      const Tensor sum = beside ? y : rows_of(*own);
      dispatch("amstel::conv_lstm_gates", "", sum, beside ? bias : OptionalTensor(y),
               rows_of(c_from), peephole, rows_of(target), rows_of(c_to), rows_of(kept));
    }
    if (!on) continue;
    torch::stable::copy_(target, where(*on, target, beside ? part(source, 3, 0, hidden) : source));
    torch::stable::copy_(c_to, where(*on, c_to, *before));
  }
}

std::tuple<Tensor, Tensor, Tensor> conv_lstm_steps_grad(
    Tensor activated, Tensor c, OptionalTensor grad_output, OptionalTensor grad_h,
    OptionalTensor grad_c, Tensor weight, OptionalTensor mask, OptionalTensor peephole,
    Tensor grad_gates, std::vector<int64_t> kernel, int64_t dilation, bool bias, bool need_h) {
  const char* op = "conv_lstm_steps_grad";
  check_steps(op, "activated", activated);
  check_steps(op, "c", c);
  check_steps(op, "grad_gates", grad_gates);
  const int64_t steps = activated.size(0), hidden = c.size(4);
  AMSTEL_CHECK(c.size(0) == steps + 1 && grad_gates.size(0) == steps, op,
               ": `c` must have a frame more than `activated`, and `grad_gates` as many, got ",
               describe(c), ", ", describe(activated), " and ", describe(grad_gates));
  const Recurrent recurrent(op, std::move(weight), std::move(kernel), dilation);
  std::vector<Tensor> sums;
  for (int64_t t = steps - 1; t >= 0; --t) {
    const OptionalTensor on = on_at(mask, t);
    OptionalTensor out = at(grad_output, t), passed_h, passed_c;
    if (out) out = torch::stable::contiguous(*out);
    if (on) {
      grad_h = sum_of(out, grad_h), out = std::nullopt;
      std::tie(grad_h, passed_h) = split(on, grad_h);
      std::tie(grad_c, passed_c) = split(on, grad_c);
    }
    const Tensor own = at(grad_gates, t), cell = at(c, t);
    Tensor grad_cell = empty(cell, {cell.size(0), cell.size(1), cell.size(2), hidden});
    sums.push_back(call("amstel::conv_lstm_gates_grad", "", rows_of(at(activated, t)),
                        rows_of(cell), rows_of(at(c, t + 1)), peephole, rows_of(out),
                        rows_of(grad_h), rows_of(grad_c), rows_of(grad_cell), rows_of(own), bias));
    grad_h = std::nullopt;
    if (t > 0 || need_h) grad_h = sum_of(recurrent.back(own, hidden), passed_h);
    grad_c = sum_of(grad_cell, passed_c);
  }
  const auto found = [&](const OptionalTensor& t) { return t ? *t : empty(activated, {0}); };
  return {found(grad_h), found(grad_c),
          sums.empty() ? empty(c, {0, 0}) : call("aten::cat", "", sums, int64_t{0})};
}

}  // namespace amstel

STABLE_TORCH_LIBRARY_IMPL(amstel, CompositeExplicitAutograd, m) {
  m.impl("conv_lstm_steps", TORCH_BOX(&amstel::conv_lstm_steps));
  m.impl("conv_lstm_steps_grad", TORCH_BOX(&amstel::conv_lstm_steps_grad));
}
