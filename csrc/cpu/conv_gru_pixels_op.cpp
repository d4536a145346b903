// The whole cell of a convolutional GRU with 1x1 kernels on the CPU: the products of pixels with
// weights, and the gates between them. A thread computes a block of pixels from end to end, with
// PyTorch's product of one thread, so that gates never leave its cache and threads meet once. Sums
// over pixels are over blocks and then over groups of blocks, which depend on sizes alone.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/conv_gru_check.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace amstel::cpu {
namespace {

constexpr int64_t kBlock = 3 << 16;  // bytes of the gates of a block, of x or of h
constexpr int64_t kMostGroups = 32;

struct Shape {
  int64_t rows, inputs, hidden;
  ScalarType dtype;
  int64_t blocks, groups, longest;  // rows of the longest block

  int64_t row(int64_t block) const { return rows * block / blocks; }
  int64_t block(int64_t group) const { return blocks * group / groups; }
};

Shape check(const char* op, const Tensor& x, const OptionalTensor& h, const Tensor& weight_ih,
            const Tensor& weight_hh, const Tensor& bias_ih, const Tensor& bias_hh) {
  const ScalarType dtype = x.scalar_type();
  AMSTEL_CHECK(x.dim() == 2 && is_float(dtype) && x.is_contiguous(), op,
               ": `x` must be a contiguous floating-point [P, C_in], got ", describe(x));
  AMSTEL_CHECK(weight_hh.dim() == 2, op, ": `weight_hh` must be [3C, C], got ",
               describe(weight_hh));
  Shape s{.rows = x.size(0), .inputs = x.size(1), .hidden = weight_hh.size(1), .dtype = dtype};
  check_rows(op, x, "weight_ih", weight_ih, 3 * s.hidden, s.inputs, dtype);
  check_rows(op, x, "weight_hh", weight_hh, 3 * s.hidden, s.hidden, dtype);
  check_vector(op, x, "bias_ih", bias_ih, 3 * s.hidden, dtype);
  check_vector(op, x, "bias_hh", bias_hh, 3 * s.hidden, dtype);
  if (h) check_rows(op, x, "h", *h, s.rows, s.hidden, dtype);
  const auto width = std::max<int64_t>(1, 3 * s.hidden * static_cast<int64_t>(x.element_size()));
  s.blocks = std::max<int64_t>(1, s.rows / std::max<int64_t>(1, kBlock / width));
  s.groups = std::clamp<int64_t>(s.blocks / 2, 1, kMostGroups);
  s.longest = divide_up(s.rows, s.blocks);
  return s;
}

// A view of which autograd knows nothing.
Tensor view(const Tensor& t, int64_t first, std::array<int64_t, 2> sizes,
            std::array<int64_t, 2> strides) {
  AtenTensorHandle found = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch__reinterpret_tensor(t.get(), 2, sizes.data(), strides.data(), first, &found));
  return Tensor(found);
}
Tensor some(const Tensor& t, int64_t row, int64_t rows) {
  return view(t, row * t.size(1), {rows, t.size(1)}, {t.size(1), 1});
}
Tensor transposed(const Tensor& t) { return view(t, 0, {t.size(1), t.size(0)}, {1, t.size(1)}); }

// out = a b, and out = plus + a b
void multiply(const Tensor& out, const Tensor& a, const Tensor& b) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(out.get(), a.get(), b.get()));
}
void multiply_add(const Tensor& out, const Tensor& plus, const Tensor& a, const Tensor& b) {
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_cpu_addmm_out(out.get(), plus.get(), a.get(), b.get(), 1, 1));
}

// What one thread holds: gates of a block, and zeros for the state where there is none.
struct Room {
  Tensor gates_x, gates_h, state;
  Room(const Tensor& like, const Shape& s, bool zeros)
      : gates_x(empty(like, {s.longest, 3 * s.hidden})),
        gates_h(empty(like, {s.longest, 3 * s.hidden})),
        state(empty(like, {zeros ? s.longest : 0, s.hidden})) {
    torch::stable::zero_(state);
  }
};

// The gates of n pixels to `room`, and from them h_out and, if it is asked for, activated.
struct Cell {
  const Shape& s;
  const Tensor &x, weight_ih, weight_hh, &bias_ih, &bias_hh;  // the weights transposed
  const OptionalTensor& h;

  Tensor state(const Room& room, int64_t first, int64_t n) const {
    return h ? some(*h, first, n) : some(room.state, 0, n);
  }

  void run(const Room& room, int64_t first, int64_t n, void* h_out, void* activated) const {
    const Tensor gates_x = some(room.gates_x, 0, n), gates_h = some(room.gates_h, 0, n);
    const Tensor h_in = state(room, first, n);
    multiply_add(gates_x, bias_ih, some(x, first, n), weight_ih);
    if (h) {
      multiply_add(gates_h, bias_hh, h_in, weight_hh);
    } else {
      const int64_t bytes = bias_hh.numel() * static_cast<int64_t>(bias_hh.element_size());
      for (int64_t i = 0; i < n; ++i)
        std::memcpy(static_cast<char*>(gates_h.mutable_data_ptr()) + i * bytes,
                    bias_hh.const_data_ptr(), bytes);
    }
    const ConvGruArgs args{.gates_x = gates_x.const_data_ptr(),
                           .gates_h = gates_h.const_data_ptr(),
                           .h = h_in.const_data_ptr(),
                           .h_out = h_out,
                           .activated = activated,
                           .inner = s.hidden,
                           .stream = false};
    kernels().conv_gru_gates[dtype_index(s.dtype)](args, 0, n);
  }
};

// f(thread, group, block) over all blocks, those of a group by one thread and in their order.
template <class F>
void over_blocks(const Shape& s, int64_t threads, const F& f) {
  if (!threads) return;
  parallel_parts(threads, [&](int64_t t) {
    for (int64_t g = s.groups * t / threads; g < s.groups * (t + 1) / threads; ++g)
      for (int64_t b = s.block(g); b < s.block(g + 1); ++b) f(t, g, b);
  });
}

// Threads that have something to do; none where nothing is to be done.
int64_t threads_of(const Shape& s) {
  return s.rows && s.hidden ? std::min<int64_t>(s.groups, torch::stable::get_num_threads()) : 0;
}

std::vector<Room> rooms(int64_t threads, const Tensor& like, const Shape& s, bool zeros) {
  std::vector<Room> found;
  for (int64_t t = 0; t < threads; ++t) found.emplace_back(like, s, zeros);
  return found;
}

void* row(const Tensor& t, int64_t first) {
  return static_cast<char*>(t.mutable_data_ptr()) +
         first * t.size(1) * static_cast<int64_t>(t.element_size());
}

template <class S, class T>
void add(S* sum, const T* added, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sum[i] += static_cast<S>(added[i]);
}

}  // namespace

std::tuple<Tensor, Tensor> conv_gru_pixels(Tensor x, OptionalTensor h, Tensor weight_ih,
                                           Tensor weight_hh, Tensor bias_ih, Tensor bias_hh,
                                           bool keep) {
  const Shape s = check("conv_gru_pixels", x, h, weight_ih, weight_hh, bias_ih, bias_hh);
  Tensor h_out = empty(x, {s.rows, s.hidden});
  Tensor activated = empty(x, {keep ? s.rows : 0, 4 * s.hidden});
  const int64_t threads = threads_of(s);
  const auto room = rooms(threads, x, s, !h);
  const Cell cell{s, x, transposed(weight_ih), transposed(weight_hh), bias_ih, bias_hh, h};
  over_blocks(s, threads, [&](int64_t t, int64_t, int64_t b) {
    const int64_t first = s.row(b), n = s.row(b + 1) - first;
    cell.run(room[t], first, n, row(h_out, first), keep ? row(activated, first) : nullptr);
  });
  return {h_out, activated};
}

// Gradients of x, h, the weights and the biases, as far as they are needed (else without rows).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> conv_gru_pixels_grad(
    Tensor grad, OptionalTensor activated, Tensor x, OptionalTensor h, Tensor weight_ih,
    Tensor weight_hh, Tensor bias_ih, Tensor bias_hh, bool need_x, bool need_h, bool need_weights) {
  const char* op = "conv_gru_pixels_grad";
  const Shape s = check(op, x, h, weight_ih, weight_hh, bias_ih, bias_hh);
  check_rows(op, x, "grad", grad, s.rows, s.hidden, s.dtype);
  if (activated) check_rows(op, x, "activated", *activated, s.rows, 4 * s.hidden, s.dtype);
  const ScalarType sum = sum_dtype(s.dtype);
  const int64_t gates = 3 * s.hidden, threads = threads_of(s);
  // Where the sums of a group for weight_ih, weight_hh, bias_ih and bias_hh begin, and end.
  const int64_t at[] = {0, gates * s.inputs, gates * (s.inputs + s.hidden),
                        gates * (s.inputs + s.hidden + 1), gates * (s.inputs + s.hidden + 2)};
  Tensor grad_x = empty(x, {need_x ? s.rows : 0, s.inputs});
  Tensor grad_h = empty(x, {need_h ? s.rows : 0, s.hidden});
  Tensor sums = empty(x, {need_weights ? s.groups : 0, at[4]}, sum);
  torch::stable::zero_(sums);
  if (!threads) torch::stable::zero_(grad_x);
  // Of a thread: gates computed again; the new state then, or the gradient of h that nobody asks
  // for; what a block adds to a weight's gradient, and to a bias's.
  const Tensor again = empty(x, {activated ? 0 : threads * s.longest, 4 * s.hidden});
  const Tensor spare = empty(x, {threads * s.longest, s.hidden});
  const Tensor added = empty(x, {threads * gates, std::max(s.inputs, s.hidden)});
  const Tensor column = empty(x, {threads, gates}, sum);
  const auto room = rooms(threads, x, s, !h);
  const Cell cell{s, x, transposed(weight_ih), transposed(weight_hh), bias_ih, bias_hh, h};
  const auto kernel = kernels().conv_gru_gates_grad[dtype_index(s.dtype)];
  const auto sum_rows = kernels().epilogue_grad[dtype_index(s.dtype)];

  Tensor found[] = {empty(x, {need_weights ? gates : 0, s.inputs}),
                    empty(x, {need_weights ? gates : 0, s.hidden}),
                    empty(x, {need_weights ? gates : 0}), empty(x, {need_weights ? gates : 0})};
  with_float(op, "x", x, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = std::conditional_t<std::is_same_v<T, double>, double, float>;
    // Adds d^T in to one sum, and the rows of d to another.
    const auto add_products = [&](int64_t t, const Tensor& d, const Tensor* in, S* weight,
                                  S* bias) {
      if (in) {
        const int64_t width = in->size(1);
        const Tensor product = view(added, t * gates * added.size(1), {gates, width}, {width, 1});
        multiply(product, transposed(d), *in);
        add(weight, data<T>(product), product.numel());
      }
      S* const rows = mutable_data<S>(column) + t * gates;
      sum_rows({.grad = d.const_data_ptr(), .sum = rows, .grad_stride = gates, .features = gates},
               0, d.size(0));
      add(bias, rows, gates);
    };
    over_blocks(s, threads, [&](int64_t t, int64_t g, int64_t b) {
      const int64_t first = s.row(b), n = s.row(b + 1) - first, own = t * s.longest;
      const Tensor h_in = cell.state(room[t], first, n), x_in = some(x, first, n);
      if (!activated) cell.run(room[t], first, n, row(spare, own), row(again, own));
      const Tensor d_x = some(room[t].gates_x, 0, n), d_g = some(room[t].gates_h, 0, n);
      kernel({.grad = row(grad, first),
              .activated = activated ? row(*activated, first) : row(again, own),
              .h = h_in.const_data_ptr(),
              .grad_gates_x = d_x.mutable_data_ptr(),
              .grad_gates_h = d_g.mutable_data_ptr(),
              .grad_h = need_h ? row(grad_h, first) : row(spare, own),
              .inner = s.hidden},
             0, n);
      if (need_x) multiply(some(grad_x, first, n), d_x, weight_ih);
      if (need_h) {
        const Tensor out = some(grad_h, first, n);
        multiply_add(out, out, d_g, weight_hh);
      }
      if (need_weights) {
        S* const sum = mutable_data<S>(sums) + g * at[4];
        add_products(t, d_x, &x_in, sum + at[0], sum + at[2]);
        add_products(t, d_g, h ? &h_in : nullptr, sum + at[1], sum + at[3]);
      }
    });
    S* const total = mutable_data<S>(sums);
    for (int64_t g = 1; g < sums.size(0); ++g) add(total, total + g * at[4], at[4]);
    for (int n = 0; n < 4 && need_weights; ++n)
      std::copy(total + at[n], total + at[n + 1], mutable_data<T>(found[n]));
  });
  return {grad_x, grad_h, found[0], found[1], found[2], found[3]};
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("conv_gru_pixels", TORCH_BOX(&amstel::cpu::conv_gru_pixels));
  m.impl("conv_gru_pixels_grad", TORCH_BOX(&amstel::cpu::conv_gru_pixels_grad));
}
