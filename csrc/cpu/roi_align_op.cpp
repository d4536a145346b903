// ROI align and position-sensitive ROI pooling on the CPU: check, find the samples or bins of every
// box, share boxes out into windows and windows to threads. The arithmetic is in
// kernels/roi_align.inl.h.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "common/roi_align.h"
#include "common/roi_align_check.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/roi_windows.h"

namespace amstel::cpu {
namespace {

// The boxes as float32, or float64 where that is the arithmetic; raises at the first that is not
// valid.
template <class F>
void for_boxes(const char* op, const Tensor& rois, const RoiShape& s, const F& f) {
  with_float(op, "rois", rois, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* values = data<T>(rois);
    for (int64_t k = 0; k < s.rois; ++k) {
      double box[5];
      for (int i = 0; i < 5; ++i)
        box[i] = static_cast<double>(values[k * rois.stride(0) + i * rois.stride(1)]);
      bool valid = box[0] >= 0 && box[0] < static_cast<double>(s.images) &&
                   static_cast<double>(static_cast<int64_t>(box[0])) == box[0];
      for (int i = 1; i < 5; ++i) valid = valid && std::isfinite(box[i]);
      if (!valid) fail_roi(op, k, box, s.images);
      f(k, box);
    }
  });
}

// What both operators plan: where every box reads, and which boxes share a window.
struct Plan {
  std::vector<RoiSample> samples;
  std::vector<int64_t> starts;
  std::vector<int64_t> counts;
  std::vector<int32_t> table;
  std::vector<Bounds> bounds;  // of every box
  std::vector<int64_t> images, order;
  std::vector<RoiGroup> groups;
  int64_t cells = 0;  // of the largest window

  explicit Plan(const RoiShape& s) : bounds(s.rois), images(s.rois), order(s.rois) {}

  // A group for each image that has boxes (`together`), or for each box where windows of their own
  // are less to read.
  void group(const RoiShape& s, bool together) {
    const std::vector<int64_t> first = by_image(s, order, [&](int64_t k) { return images[k]; });
    const auto add = [&](int64_t image, const Bounds& b, int64_t begin, int64_t end) {
      groups.push_back(b.group(image, order, begin, end));
      cells = std::max(cells, b.cells());
    };
    for (int64_t n = 0; n < s.images; ++n) {
      Bounds all;
      int64_t sum = 0;
      for (int64_t k = first[n]; k < first[n + 1]; ++k) {
        all.add(bounds[order[k]]);
        sum += bounds[order[k]].cells();
      }
      if (together || all.cells() <= sum) {
        if (first[n] < first[n + 1]) add(n, all, first[n], first[n + 1]);
      } else {
        for (int64_t k = first[n]; k < first[n + 1]; ++k) add(n, bounds[order[k]], k, k + 1);
      }
    }
  }
};

// The samples of all boxes, in C, the arithmetic of the boxes.
template <class C>
void find_samples(const char* op, const Tensor& rois, const RoiShape& s, double spatial_scale,
                  int64_t sampling, bool aligned, Plan& plan) {
  const int64_t width = s.pooled_height + s.pooled_width + 3;
  const C scale = static_cast<C>(spatial_scale);
  plan.starts.resize(s.rois * width);
  plan.counts.resize(s.rois);
  const auto add_axis = [&](const roi::Axis<C>& axis, int64_t size, int64_t* starts, int64_t& low,
                            int64_t& end) {
    low = std::numeric_limits<int64_t>::max(), end = 0;
    for (int64_t b = 0; b < axis.bins; ++b) {
      starts[b] = static_cast<int64_t>(plan.samples.size());
      int64_t first, last;
      roi::near_samples(axis, b, size, &first, &last);
      for (int64_t i = first; i < last; ++i) {
        RoiSample sample;
        C of_high;
        if (!roi::sample_of(axis, b, i, size, &sample.low, &sample.high, &of_high)) continue;
        const C of_low = C(1) - of_high;
        sample.wide = {of_low, of_high};
        sample.single = {static_cast<float>(of_low), static_cast<float>(of_high)};
        low = std::min<int64_t>(low, sample.low);
        end = std::max<int64_t>(end, sample.high + 1);
        plan.samples.push_back(sample);
      }
    }
    starts[axis.bins] = static_cast<int64_t>(plan.samples.size());
  };
  for_boxes(op, rois, s, [&](int64_t k, const double* box) {
    const auto axis = [&](int i, int64_t bins) {
      return roi::axis_of<C>(static_cast<C>(box[i]), static_cast<C>(box[i + 2]), scale, bins,
                             sampling, aligned);
    };
    const roi::Axis<C> rows = axis(2, s.pooled_height), cols = axis(1, s.pooled_width);
    int64_t* starts = plan.starts.data() + k * width;
    plan.images[k] = starts[0] = static_cast<int64_t>(box[0]);
    Bounds& b = plan.bounds[k];
    // A map without cells has no sample.
    const bool any = s.height > 0 && s.width > 0;
    add_axis(rows, any ? s.height : -2, starts + 1, b.row, b.row_end);
    add_axis(cols, any ? s.width : -2, starts + 2 + s.pooled_height, b.col, b.col_end);
    plan.counts[k] = std::max<int64_t>(rows.grid * cols.grid, 1);
  });
}

template <class C>
void find_bins(const char* op, const Tensor& rois, const RoiShape& s, double spatial_scale,
               Plan& plan) {
  const int64_t ph = s.pooled_height, pw = s.pooled_width, width = roi::table_width(ph, pw);
  const C scale = static_cast<C>(spatial_scale);
  plan.table.resize(s.rois * width);
  for_boxes(op, rois, s, [&](int64_t k, const double* box) {
    int32_t* row = plan.table.data() + k * width;
    plan.images[k] = row[0] = static_cast<int32_t>(box[0]);
    roi::ps_bins(static_cast<C>(box[2]), static_cast<C>(box[4]), scale, ph, s.height, row + 1);
    roi::ps_bins(static_cast<C>(box[1]), static_cast<C>(box[3]), scale, pw, s.width,
                 row + 1 + 2 * ph);
    Bounds& b = plan.bounds[k];
    b.row = row[1], b.row_end = row[2 * ph];
    b.col = row[1 + 2 * ph], b.col_end = row[2 * ph + 2 * pw];
  });
}

RoiAlignArgs arguments(const RoiShape& s, const Plan& plan) {
  RoiAlignArgs a{};
  a.roi.channels = s.channels, a.roi.height = s.height, a.roi.width = s.width;
  a.roi.pooled_height = s.pooled_height, a.roi.pooled_width = s.pooled_width;
  a.roi.table = plan.table.data();
  a.samples = plan.samples.data();
  a.starts = plan.starts.data(), a.starts_width = s.pooled_height + s.pooled_width + 3;
  a.counts = plan.counts.data();
  return a;
}

// The kernel over all groups and tiles of channels; scratch has a window, or one for every lane of
// a vector.
void run(decltype(Kernels::RoiAlign::align) Kernels::RoiAlign::* which, const RoiAlignArgs& args,
         const RoiShape& s, const Plan& plan, bool many_windows = false) {
  const int64_t size = s.dtype == ScalarType::Double ? 8 : 4;
  const auto& all = kernels().roi_align[dtype_index(s.dtype)];
  const auto bytes = [&](const Kernels::RoiAlign& k) {
    const int64_t windows = many_windows && k.tile > 1 ? all[1].tile : 1;
    return (windows * plan.cells + 2 * s.bins()) * k.tile * size;
  };
  const Kernels::RoiAlign& kernel = all[bytes(all[0]) > kMostScratch ? 2
                                        : s.channels <= all[1].tile  ? 1
                                                                     : 0];
  const int64_t tiles = divide_up(s.channels, kernel.tile);
  const int64_t items = static_cast<int64_t>(plan.groups.size()) * tiles;
  const int64_t work = (s.rois * s.bins() * 4 + s.images * plan.cells) * s.channels * size;
  const int64_t parts = std::min(threads_for(work), items);
  if (items == 0) return;
  parallel_parts(parts, [&](int64_t p) {
    const Scratch scratch(bytes(kernel));
    for (int64_t i = items * p / parts; i < items * (p + 1) / parts; ++i)
      (kernel.*which)(args, plan.groups[i / tiles], i % tiles * kernel.tile, scratch.memory);
  });
}

// In float64 where that is what input and boxes share, or bfloat16 is; else in float32.
template <class F>
void with_arithmetic(const RoiShape& s, const F& f) {
  if (s.arithmetic == roi::Arithmetic::kDouble)
    f(double{});
  else
    f(float{});
}

}  // namespace

Tensor roi_align(Tensor input, Tensor rois, double spatial_scale, int64_t pooled_height,
                 int64_t pooled_width, int64_t sampling, bool aligned) {
  const char* op = "roi_align";
  const RoiShape s = check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width);
  check_sampling(op, sampling);
  Plan plan(s);
  with_arithmetic(s, [&](auto c) {
    find_samples<decltype(c)>(op, rois, s, spatial_scale, sampling, aligned, plan);
  });
  plan.group(s, false);
  Tensor output = empty_pooled(input, s, s.dtype);
  RoiAlignArgs a = arguments(s, plan);
  a.roi.input = input.const_data_ptr();
  a.roi.in = strides(input);
  a.roi.pooled = output.mutable_data_ptr();
  a.roi.pooled_strides = strides(output);
  a.roi.stream = outgrows_caches(output);
  run(&Kernels::RoiAlign::align, a, s, plan);
  return output;
}

Tensor roi_align_grad(Tensor grad, Tensor rois, double spatial_scale, int64_t sampling,
                      bool aligned, int64_t images, int64_t height, int64_t width,
                      bool channels_last) {
  const char* op = "roi_align_grad";
  const RoiShape s =
      check_region_grad(op, grad, rois, spatial_scale, images, height, width, channels_last);
  check_sampling(op, sampling);
  Plan plan(s);
  with_arithmetic(s, [&](auto c) {
    find_samples<decltype(c)>(op, rois, s, spatial_scale, sampling, aligned, plan);
  });
  plan.group(s, true);
  Tensor grad_input = zero_images(grad, s, s.channels);
  RoiAlignArgs a = arguments(s, plan);
  a.roi.pooled = const_cast<void*>(grad.const_data_ptr());
  a.roi.pooled_strides = strides(grad);
  a.roi.grad_input = grad_input.mutable_data_ptr();
  a.roi.grad_strides = strides(grad_input);
  run(&Kernels::RoiAlign::align_grad, a, s, plan);
  return grad_input;
}

Tensor ps_roi_pool(Tensor input, Tensor rois, double spatial_scale, int64_t pooled_height,
                   int64_t pooled_width) {
  const char* op = "ps_roi_pool";
  const RoiShape s =
      of_output(op, check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width));
  Plan plan(s);
  with_arithmetic(s, [&](auto c) { find_bins<decltype(c)>(op, rois, s, spatial_scale, plan); });
  plan.group(s, true);
  Tensor output = empty_pooled(input, s, s.dtype);
  RoiAlignArgs a = arguments(s, plan);
  a.roi.input = input.const_data_ptr();
  a.roi.in = strides(input);
  a.roi.pooled = output.mutable_data_ptr();
  a.roi.pooled_strides = strides(output);
  a.roi.stream = outgrows_caches(output);
  run(&Kernels::RoiAlign::ps_pool, a, s, plan, a.roi.in.channel == 1);
  return output;
}

Tensor ps_roi_pool_grad(Tensor grad, Tensor rois, double spatial_scale, int64_t images,
                        int64_t height, int64_t width, bool channels_last) {
  const char* op = "ps_roi_pool_grad";
  const RoiShape s =
      check_region_grad(op, grad, rois, spatial_scale, images, height, width, channels_last);
  Plan plan(s);
  with_arithmetic(s, [&](auto c) { find_bins<decltype(c)>(op, rois, s, spatial_scale, plan); });
  plan.group(s, true);
  Tensor grad_input = zero_images(grad, s, s.channels * s.bins());
  RoiAlignArgs a = arguments(s, plan);
  a.roi.pooled = const_cast<void*>(grad.const_data_ptr());
  a.roi.pooled_strides = strides(grad);
  a.roi.grad_input = grad_input.mutable_data_ptr();
  a.roi.grad_strides = strides(grad_input);
  run(&Kernels::RoiAlign::ps_pool_grad, a, s, plan);
  return grad_input;
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&amstel::cpu::roi_align));
  m.impl("roi_align_grad", TORCH_BOX(&amstel::cpu::roi_align_grad));
  m.impl("ps_roi_pool", TORCH_BOX(&amstel::cpu::ps_roi_pool));
  m.impl("ps_roi_pool_grad", TORCH_BOX(&amstel::cpu::ps_roi_pool_grad));
}
