// The operators of ROI pooling and matching on the CPU: check, allocate, and run as cpu/roi_plan.h
// plans. The arithmetic is in kernels/roi_pool.inl.h and roi_match.inl.h, the meaning of the
// arguments in library.cpp.
#include <torch/csrc/stable/library.h>

#include <atomic>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cpu/roi_plan.h"

namespace amstel::cpu {
namespace {

RoiArgs arguments(const RoiShape& s, const RoiPlan& plan) {
  RoiArgs a{};
  a.channels = s.channels;
  a.height = s.height;
  a.width = s.width;
  a.pooled_height = s.pooled_height;
  a.pooled_width = s.pooled_width;
  a.table = plan.table.data();
  return a;
}

// Of a new [N, C, H, W] in the layout of the input.
RoiStrides image_strides(const RoiShape& s) {
  const int64_t cells = s.height * s.width;
  return s.channels_last ? RoiStrides{s.channels * cells, 1, s.width * s.channels, s.channels}
                         : RoiStrides{s.channels * cells, cells, s.width, 1};
}

// A pooled map in which the next bin is always as far away as the next column of bins.
Tensor bins_in_line(const Tensor& t) {
  const bool in_line = t.stride(2) == t.size(3) * t.stride(3);
  return in_line ? t : torch::stable::contiguous(t);
}

// out = the sum over the first dimension of sums, in order, cast to the dtype of `out`.
void add_up(const Tensor& sums, const Tensor& out) {
  with_float("roi_match", "query", out, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const S* in = data<S>(sums);
    T* to = mutable_data<T>(out);
    const int64_t n = out.numel(), rows = sums.size(0);
    for (int64_t i = 0; i < n; ++i) {
      S total = 0;
      for (int64_t r = 0; r < rows; ++r) total += in[r * n + i];
      to[i] = static_cast<T>(total);
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor> roi_pool(Tensor input, Tensor rois, double spatial_scale,
                                    int64_t pooled_height, int64_t pooled_width, bool need_argmax,
                                    bool check, std::optional<Tensor>) {
  const char* op = "roi_pool";
  const RoiShape s = check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width);
  const RoiPlan plan(op, rois, s, spatial_scale,
                     need_argmax ? Windows::kPositions : Windows::kValues, check);
  Tensor output = empty_pooled(input, s, s.dtype);
  Tensor argmax =
      need_argmax ? empty_pooled(input, s, ScalarType::Int) : empty(input, {0}, ScalarType::Int);
  RoiArgs a = arguments(s, plan);
  a.input = input.const_data_ptr();
  a.in = strides(input);
  a.pooled = output.mutable_data_ptr();
  a.argmax = need_argmax ? mutable_data<int32_t>(argmax) : nullptr;
  a.pooled_strides = {s.channels * s.bins(), s.channels_last ? 1 : s.bins(), 0,
                      s.channels_last ? s.channels : 1};
  a.stream = outgrows_caches(output);
  RoiLaunch{s, plan, 1, 4}.run(&Kernels::Roi::pool, a);
  return {output, argmax};
}

Tensor roi_pool_grad(Tensor grad, Tensor argmax, Tensor rois, double spatial_scale, int64_t images,
                     int64_t height, int64_t width, bool channels_last) {
  const char* op = "roi_pool_grad";
  const RoiShape s = check_rois_of_grad(op, grad, argmax, rois, spatial_scale, images, height,
                                        width, channels_last);
  grad = bins_in_line(grad);
  argmax = bins_in_line(argmax);
  const RoiPlan plan(op, rois, s, spatial_scale, Windows::kBand);
  Tensor grad_input = empty_images(grad, s, s.channels);
  bool bad = false;
  RoiArgs a = arguments(s, plan);
  a.grad_strides = image_strides(s);
  a.pooled = const_cast<void*>(grad.const_data_ptr());
  a.pooled_strides = strides(grad);
  a.argmax = const_cast<int32_t*>(data<int32_t>(argmax));
  a.argmax_strides = strides(argmax);
  a.grad_input = grad_input.mutable_data_ptr();
  a.stream = outgrows_caches(grad_input);
  a.bad_argmax = &bad;
  RoiLaunch{s, plan, 1, 1}.run(&Kernels::Roi::pool_grad, a);
  AMSTEL_CHECK(!bad, op, ": `argmax` must be -1 or lie in the box of its roi");
  return grad_input;
}

Tensor roi_pool_gather(Tensor input, Tensor argmax, Tensor rois) {
  const char* op = "roi_pool_gather";
  AMSTEL_CHECK(argmax.dim() == 4, op, ": `argmax` must be an int32 [K, C, ph, pw], got ",
               describe(argmax));
  const RoiShape s = check_rois(op, input, rois, 1, argmax.size(2), argmax.size(3));
  check_pooled(op, "argmax", input, argmax, s, ScalarType::Int);
  const std::vector<int32_t> table = bin_table(op, rois, s, 1, true);
  const int64_t table_width = roi::table_width(s.pooled_height, s.pooled_width);
  Tensor out = empty_pooled(input, s, s.dtype);
  const RoiStrides in = strides(input), from = strides(argmax), to = strides(out);
  const int64_t cells = s.height * s.width;
  bool bad = false;
  with_float(op, "input", input, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t parts = threads_for(out.numel() * 16);
    parallel_parts(parts, [&](int64_t p) {
      bool any_bad = false;
      for (int64_t k = s.rois * p / parts; k < s.rois * (p + 1) / parts; ++k) {
        for (int64_t c = 0; c < s.channels; ++c) {
          const T* x = data<T>(input) + table[k * table_width] * in.item + c * in.channel;
          const int32_t* cell = data<int32_t>(argmax) + k * from.item + c * from.channel;
          T* y = mutable_data<T>(out) + k * to.item + c * to.channel;
          for (int64_t i = 0; i < s.pooled_height; ++i) {
            for (int64_t j = 0; j < s.pooled_width; ++j) {
              const int64_t at = cell[i * from.row + j * from.col];
              const bool inside = at >= 0 && at < cells;
              any_bad |= !inside && at != -1;
              y[i * to.row + j * to.col] =
                  inside ? x[at / s.width * in.row + at % s.width * in.col] : T(0);
            }
          }
        }
      }
      if (any_bad) std::atomic_ref<bool>(bad).store(true, std::memory_order_relaxed);
    });
  });
  AMSTEL_CHECK(!bad, op, ": `argmax` must be -1 or a cell of the input, from 0 to ", cells - 1);
  return out;
}

Tensor roi_match(Tensor input, Tensor rois, Tensor query, double spatial_scale,
                 int64_t pooled_height, int64_t pooled_width, bool check, std::optional<Tensor>) {
  const char* op = "roi_match";
  const RoiShape s = check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width);
  check_query(op, input, query, s);
  const RoiPlan plan(op, rois, s, spatial_scale, Windows::kValues, check);
  // The narrower tile, since memory is what the caller saves.
  const RoiLaunch launch{s, plan, 1, 1, 1};
  const ScalarType sum = sum_dtype(s.dtype);
  Tensor sums = empty(input, {launch.tiles, s.rois, 2}, sum);
  RoiArgs a = arguments(s, plan);
  a.input = input.const_data_ptr();
  a.in = strides(input);
  a.query = query.const_data_ptr();
  a.sums = sums.mutable_data_ptr();
  a.tile_sums = 2 * s.rois;
  launch.run(&Kernels::Roi::match, a);
  Tensor out = empty(input, {s.rois, 2}, sum);
  add_up(sums, out);
  return out;
}

std::tuple<Tensor, Tensor> roi_match_grad(Tensor input, Tensor rois, Tensor query,
                                          Tensor coefficients, double spatial_scale,
                                          int64_t pooled_height, int64_t pooled_width,
                                          bool need_input, bool need_query) {
  const char* op = "roi_match_grad";
  const RoiShape s = check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width);
  check_query(op, input, query, s);
  check_coefficients(op, input, coefficients, s);
  const RoiPlan plan(op, rois, s, spatial_scale, Windows::kImage);
  Tensor grad_input = need_input ? empty_images(input, s, s.channels) : empty(input, {0});
  Tensor grad_query = empty(input, {need_query ? query.numel() : 0});
  // A row for every image, added up at the end; an image without boxes writes none.
  const ScalarType sum = sum_dtype(s.dtype);
  Tensor sums = empty(input, {s.images, grad_query.numel()}, sum);
  torch::stable::zero_(sums);
  RoiArgs a = arguments(s, plan);
  a.input = input.const_data_ptr();
  a.in = strides(input);
  a.query = query.const_data_ptr();
  a.coefficients = coefficients.const_data_ptr();
  a.grad_input = need_input ? grad_input.mutable_data_ptr() : nullptr;
  a.stream = need_input && outgrows_caches(grad_input);
  a.grad_strides = image_strides(s);
  RoiLaunch{s, plan, 2, 2}.run(
      &Kernels::Roi::match_grad, a, [&](RoiArgs& of_group, const RoiGroup& group) {
        if (need_query)
          of_group.grad_query =
              static_cast<char*>(sums.mutable_data_ptr()) +
              group.image * sums.size(1) * static_cast<int64_t>(sums.element_size());
      });
  add_up(sums, grad_query);
  return {grad_input, grad_query};
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("roi_pool", TORCH_BOX(&amstel::cpu::roi_pool));
  m.impl("roi_pool_grad", TORCH_BOX(&amstel::cpu::roi_pool_grad));
  m.impl("roi_pool_gather", TORCH_BOX(&amstel::cpu::roi_pool_gather));
  m.impl("roi_match", TORCH_BOX(&amstel::cpu::roi_match));
  m.impl("roi_match_grad", TORCH_BOX(&amstel::cpu::roi_match_grad));
}
