// The graph operators on the CPU: check, allocate, run threads. The arithmetic is in
// kernels/spmm.inl.h, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "common/rows.h"
#include "common/spmm_check.h"
#include "common/spmm_kept.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/huge_pages.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace amstel::cpu {
namespace {

void* item(const Tensor& t, int64_t b, int64_t count) {
  return static_cast<char*>(t.mutable_data_ptr()) +
         b * count * static_cast<int64_t>(t.element_size());
}

constexpr int64_t kCache = 1 << 22;  // bytes, twice those of a usual second-level cache

// Whether gathered rows are seldom near: wide ones from half a usual second-level cache on, narrow
// ones, of which the processor has many under way by itself, only from twice of it.
bool outgrows_cache(const Tensor& x) {
  const int64_t size = x.element_size();
  const bool wide = x.size(x.dim() - 1) * size >= 512;
  return x.numel() * size > (wide ? 1 << 19 : 1 << 21);
}

Tensor empty_rows(const Tensor& like, int64_t rows, int64_t features) {
  Tensor out =
      like.dim() == 3 ? empty(like, {like.size(0), rows, features}) : empty(like, {rows, features});
  want_huge_pages(out);
  return out;
}

// f(row_begin, row_end) over the rows of crow, balanced.
template <class F>
void over_rows(const Tensor& crow, int64_t edge_work, const F& f) {
  with_index("spmm", "crow", crow, [&](auto type) {
    using I = typename decltype(type)::type;
    parallel_rows(data<I>(crow), crow.size(0) - 1, edge_work, f);
  });
}

// Wide features of many edges a row are multiplied a panel of kPanel bytes a row at a time, copied
// to be contiguous: a row of x is read again and again, from a second-level cache that holds many
// more of them, and at a distance of their stride they would share a part of its sets.
constexpr int64_t kPanel = 128;
constexpr int64_t kMostCopied = int64_t{1} << 24;  // bytes of x at a time
using SpmmKernel = std::remove_extent_t<std::remove_extent_t<decltype(Kernels::spmm)>>;

bool has_panels(const SpmmShape& s, int64_t edges, int64_t size) {
  return s.features * size >= 4 * kPanel && s.cols * s.features * size > 1 << 20 &&
         edges >= 8 * s.cols;
}

// The panels of one matrix x, and where its product goes.
struct Panels {
  const char* x;
  char* y;
  SpmmArgs args;
  SpmmKernel kernel;
  int64_t stride, size;

  // Rows [begin, end) of `count` features from `feature` on, to `panel`. Rows of x are far apart:
  // no processor foresees the next one.
  void copy(char* panel, int64_t feature, int64_t count, int64_t begin, int64_t end) const {
    constexpr int64_t kRows = 16;
    const char* from = x + (begin * stride + feature) * size;
    panel += begin * kPanel;
    for (int64_t j = begin; j < end; ++j, from += stride * size, panel += kPanel) {
      if (j + kRows < end)
        for (int64_t b = 0; b < count * size; b += 64)
          __builtin_prefetch(from + kRows * stride * size + b);
      if (count * size == kPanel)
        std::memcpy(panel, from, kPanel);
      else
        std::memcpy(panel, from, count * size);
    }
  }
  void multiply(const char* panel, int64_t feature, int64_t count, int64_t begin,
                int64_t end) const {
    SpmmArgs a = args;
    a.x = panel;
    a.y = y + feature * size;
    a.bias = args.bias ? static_cast<const char*>(args.bias) + feature * size : nullptr;
    a.features = count;
    kernel(a, begin, end);
  }
};

// The product of the items. Where the threads share the panels about evenly, each has its own and
// waits for nobody; else all of them copy some panels, and then multiply.
void run_panels(const Tensor& crow, SpmmArgs args, const SpmmShape& s, const Rows& in,
                const Tensor& y, const SpmmKernel kernel) {
  const auto size = static_cast<int64_t>(y.element_size());
  const int64_t width = kPanel / size, count = divide_up(s.features, width);
  const int64_t bytes = s.cols * kPanel, fit = std::clamp<int64_t>(kMostCopied / bytes, 1, count);
  const int64_t threads = threads_for(s.cols * s.features * size);
  const bool own = threads <= fit && 8 * count >= 7 * threads * divide_up(count, threads);
  const int64_t together = own ? threads : divide_up(count, divide_up(count, fit));
  const Tensor copy = empty(y, {together, s.cols, width});
  char* const packed = static_cast<char*>(copy.mutable_data_ptr());
  args.x_stride = width;
  args.fetch = bytes > kCache;
  const auto features = [&](int64_t panel) { return std::min(width, s.features - panel * width); };
  for (int64_t b = 0; b < s.batch; ++b) {
    const Panels panels{.x = static_cast<const char*>(in.item(b)),
                        .y = static_cast<char*>(item(y, b, s.rows * s.features)),
                        .args = args,
                        .kernel = kernel,
                        .stride = in.stride,
                        .size = size};
    if (own) {
      parallel_parts(threads, [&](int64_t part) {
        char* const mine = packed + part * bytes;
        for (int64_t p = count * part / threads; p < count * (part + 1) / threads; ++p) {
          panels.copy(mine, p * width, features(p), 0, s.cols);
          panels.multiply(mine, p * width, features(p), 0, s.rows);
        }
      });
      continue;
    }
    for (int64_t first = 0; first < count; first += together) {
      const int64_t last = std::min(count, first + together);
      const int64_t parts = threads_for(bytes * together);
      parallel_parts(parts, [&](int64_t part) {
        for (int64_t p = first; p < last; ++p)
          panels.copy(packed + (p - first) * bytes, p * width, features(p), s.cols * part / parts,
                      s.cols * (part + 1) / parts);
      });
      over_rows(crow, together * kPanel, [&](int64_t begin, int64_t end) {
        for (int64_t p = first; p < last; ++p)
          panels.multiply(packed + (p - first) * bytes, p * width, features(p), begin, end);
      });
    }
  }
}

}  // namespace

Tensor spmm(Tensor crow, Tensor col, OptionalTensor edge, OptionalTensor weight, Tensor x,
            OptionalTensor row_scale, OptionalTensor col_scale, double self_loops,
            OptionalTensor bias, bool relu, bool check_weight, OptionalTensor /*found*/) {
  const SpmmShape s =
      check_spmm("spmm", crow, col, edge, weight, "x", x, row_scale, col_scale, self_loops);
  check_edges("spmm", crow, col);
  if (bias) check_vector("spmm", crow, "bias", *bias, s.features, s.dtype);
  if (weight && check_weight) check_no_nan("spmm", *weight);
  const Rows in(x);
  Tensor y = empty_rows(x, s.rows, s.features);
  const auto kernel = kernels().spmm[dtype_index(s.dtype)][crow.scalar_type() == ScalarType::Long];
  SpmmArgs args{.crow = crow.const_data_ptr(),
                .col = col.const_data_ptr(),
                .edge = pointer(edge),
                .weight = pointer(weight),
                .row_scale = pointer(row_scale),
                .col_scale = pointer(col_scale),
                .bias = pointer(bias),
                .x_stride = in.stride,
                .y_stride = s.features,
                .features = s.features,
                .self_loops = self_loops,
                .fetch = x.numel() * static_cast<int64_t>(x.element_size()) > kCache,
                .relu = relu,
                .stream = outgrows_caches(y, s.features)};
  if (has_panels(s, col.size(0), x.element_size())) {
    run_panels(crow, args, s, in, y, kernel);
    return y;
  }
  over_rows(crow, s.batch * s.features * x.element_size(), [&](int64_t begin, int64_t end) {
    SpmmArgs a = args;
    for (int64_t b = 0; b < s.batch; ++b) {
      a.x = in.item(b);
      a.y = item(y, b, s.rows * s.features);
      kernel(a, begin, end);
    }
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> spmm_grad(Tensor crow_t, Tensor col_t, Tensor edge_t,
                                                     OptionalTensor weight, Tensor grad, Tensor x,
                                                     OptionalTensor row_scale,
                                                     OptionalTensor col_scale, double self_loops,
                                                     bool need_x) {
  const char* op = "spmm_grad";
  // The transposed matrix: its rows are the nodes of x, its columns those of grad.
  const SpmmShape s =
      check_spmm(op, crow_t, col_t, edge_t, weight, "grad", grad, col_scale, row_scale, self_loops);
  check_edges(op, crow_t, col_t);
  check_spmm_grad(op, s, grad, x);
  const Rows g(grad), in(x);
  Tensor grad_x = need_x ? empty_rows(grad, s.rows, s.features) : empty(grad, {0});
  Tensor grad_weight = empty(grad, {col_t.size(0)}, s.sum);
  Tensor dot = empty(grad, {s.rows}, s.sum);
  Tensor loop = empty(grad, {self_loops != 0 ? s.rows : 0}, s.sum);
  if (s.batch == 0) {
    torch::stable::zero_(grad_weight);
    torch::stable::zero_(dot);
    torch::stable::zero_(loop);
  }
  const auto kernel =
      kernels().spmm_grad[dtype_index(s.dtype)][crow_t.scalar_type() == ScalarType::Long];
  SpmmGradArgs args{.crow = crow_t.const_data_ptr(),
                    .col = col_t.const_data_ptr(),
                    .edge = edge_t.const_data_ptr(),
                    .weight = pointer(weight),
                    .row_scale = pointer(row_scale),
                    .col_scale = pointer(col_scale),
                    .grad_weight = grad_weight.mutable_data_ptr(),
                    .dot = dot.mutable_data_ptr(),
                    .loop = self_loops != 0 ? loop.mutable_data_ptr() : nullptr,
                    .grad_stride = g.stride,
                    .x_stride = in.stride,
                    .features = s.features,
                    .self_loops = self_loops,
                    .prefetch = outgrows_cache(grad),
                    .accumulate = false};
  over_rows(crow_t, s.batch * s.features * x.element_size(), [&](int64_t begin, int64_t end) {
    SpmmGradArgs a = args;
    for (int64_t b = 0; b < s.batch; ++b) {
      a.grad = g.item(b);
      a.x = in.item(b);
      if (need_x) a.grad_x = item(grad_x, b, s.rows * s.features);
      a.accumulate = b > 0;
      kernel(a, begin, end);
    }
  });
  return {grad_x, grad_weight, dot, loop};
}

std::tuple<Tensor, Tensor> epilogue_grad(Tensor grad, OptionalTensor output) {
  const char* op = "epilogue_grad";
  check_epilogue(op, grad, output);
  const int64_t features = grad.size(grad.dim() - 1);
  const int64_t rows = features ? grad.numel() / features : 0;
  const Tensor g = torch::stable::contiguous(grad);
  Tensor grad_in = output ? torch::stable::empty_like(g) : empty(g, {0});
  if (output) output = torch::stable::contiguous(*output);
  const ScalarType sum = sum_dtype(grad.scalar_type());
  // Sums over fixed blocks of rows, then over blocks: the same for any number of threads.
  constexpr int64_t kBlock = 512;
  const int64_t blocks = divide_up(rows, kBlock);
  Tensor partial = empty(g, {blocks, features}, sum);
  const auto kernel = kernels().epilogue_grad[dtype_index(grad.scalar_type())];
  EpilogueArgs args{.grad = g.const_data_ptr(),
                    .output = pointer(output),
                    .grad_in = output ? grad_in.mutable_data_ptr() : nullptr,
                    .grad_stride = features,
                    .output_stride = features,
                    .features = features};
  const int64_t parts = threads_for(rows * features * static_cast<int64_t>(g.element_size()));
  parallel_parts(parts, [&](int64_t p) {
    for (int64_t b = blocks * p / parts; b < blocks * (p + 1) / parts; ++b) {
      EpilogueArgs a = args;
      a.sum = item(partial, b, features);
      kernel(a, b * kBlock, std::min(rows, (b + 1) * kBlock));
    }
  });
  Tensor grad_bias = empty(g, {features});
  with_float(op, "grad", grad, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const S* in = data<S>(partial);
    T* out = mutable_data<T>(grad_bias);
    for (int64_t f = 0; f < features; ++f) {
      S total = 0;
      for (int64_t b = 0; b < blocks; ++b) total += in[b * features + f];
      out[f] = static_cast<T>(total);
    }
  });
  return {grad_in, grad_bias};
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  using Kept = amstel::KeptProducts<&amstel::cpu::spmm, 0>;
  m.impl("spmm", TORCH_BOX(&amstel::cpu::spmm));
  m.impl("spmm_keep", TORCH_BOX(&Kept::keep));
  m.impl("spmm_kept", TORCH_BOX(&Kept::compute));
  m.impl("spmm_grad", TORCH_BOX(&amstel::cpu::spmm_grad));
  m.impl("epilogue_grad", TORCH_BOX(&amstel::cpu::epilogue_grad));
}
