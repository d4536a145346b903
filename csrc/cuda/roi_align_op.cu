// ROI align and position-sensitive ROI pooling on CUDA: check, allocate, launch.  The kernels and
// how their threads share the work are in kernels/roi_align.cuh.
//
// The forward operators raise at a box that is not valid, except under CUDA graph capture, where it
// is pooled to 0; the gradients come with boxes that have been looked at.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/roi_align_check.h"
#include "cuda/kernels/roi_align.cuh"
#include "cuda/roi_launch.cuh"

namespace amstel::cuda {
namespace {

// f(RegionArgs<R>) for the dtype R of the boxes; raises where `look` finds one that is not valid.
template <class F>
void for_regions(const char* op, const Tensor& rois, const RoiShape& s, double scale,
                 cudaStream_t stream, bool look, const F& f) {
  if (s.rois == 0) return;
  look = look && !is_capturing(stream);
  const Tensor first_bad = empty(rois, {look ? 1 : 0}, ScalarType::Long);
  auto* const bad = look ? mutable_data<unsigned long long>(first_bad) : nullptr;
  if (look) cudaMemsetAsync(bad, 0xff, sizeof(*bad), stream);
  with_float(rois.scalar_type(), [&](auto type) {
    using R = typename decltype(type)::type;
    const RegionArgs<R> a{.rois = data<R>(rois),
                          .row = rois.stride(0),
                          .col = rois.stride(1),
                          .scale = scale,
                          .images = s.images,
                          .height = s.height,
                          .width = s.width,
                          .pooled_height = s.pooled_height,
                          .pooled_width = s.pooled_width,
                          .count = s.rois,
                          .first_bad = bad};
    f(a);
    if (look) raise_first_bad(op, stream, bad, a, s);
  });
}

// f(double{}) or f(float{}): the arithmetic of coordinates, never float16.
template <class F>
void with_arithmetic(const RoiShape& s, const F& f) {
  s.arithmetic == roi::Arithmetic::kDouble ? f(double{}) : f(float{});
}

// The boxes as the kernels read them, and what holds them.
template <class C>
AlignBoxes<C> align_boxes(const char* op, const Tensor& rois, const RoiShape& s, double scale,
                          int64_t sampling, bool aligned, cudaStream_t stream, bool look,
                          Tensor& memory) {
  constexpr int64_t kInts = sizeof(AlignBox<C>) / sizeof(int32_t);
  memory = empty(rois, {s.rois, kInts}, ScalarType::Int);
  auto* const boxes = static_cast<AlignBox<C>*>(memory.mutable_data_ptr());
  for_regions(op, rois, s, scale, stream, look, [&](const auto& a) {
    using R = std::remove_cv_t<std::remove_pointer_t<decltype(a.rois)>>;
    AMSTEL_LAUNCH((align_boxes_kernel<R, C>), blocks(op, divide_up(s.rois, kTableThreads)),
                  kTableThreads, 0, stream, a, boxes, sampling, static_cast<int64_t>(aligned));
    check_launch(op);
  });
  const bool any = s.height > 0 && s.width > 0;
  return {boxes, s.pooled_height, s.pooled_width, any ? s.height : -2, any ? s.width : -2};
}

Tensor ps_table(const char* op, const Tensor& rois, const RoiShape& s, double scale,
                cudaStream_t stream, bool look) {
  Tensor table =
      empty(rois, {s.rois, roi::table_width(s.pooled_height, s.pooled_width)}, ScalarType::Int);
  with_arithmetic(s, [&](auto c) {
    for_regions(op, rois, s, scale, stream, look, [&](const auto& a) {
      using R = std::remove_cv_t<std::remove_pointer_t<decltype(a.rois)>>;
      AMSTEL_LAUNCH((ps_table_kernel<R, decltype(c)>), blocks(op, divide_up(s.rois, kTableThreads)),
                    kTableThreads, 0, stream, a, mutable_data<int32_t>(table));
      check_launch(op);
    });
  });
  return table;
}

}  // namespace

Tensor roi_align(Tensor input, Tensor rois, double spatial_scale, int64_t pooled_height,
                 int64_t pooled_width, int64_t sampling, bool aligned) {
  const char* op = "roi_align";
  const RoiShape s = check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width);
  check_sampling(op, sampling);
  const CurrentStream stream(input);
  Tensor output = empty_pooled(input, s, s.dtype);
  with_arithmetic(s, [&](auto c) {
    using C = decltype(c);
    Tensor memory = output;
    const AlignBoxes<C> boxes =
        align_boxes<C>(op, rois, s, spatial_scale, sampling, aligned, stream, true, memory);
    if (output.numel() == 0) return;
    with_float(s.dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      with_width<T>(s.channels_last, s.channels, alignment_of(input), [&](auto width) {
        constexpr int N = decltype(width)::value;
        const Share share = share_of(s.channels / N, s.bins(), s.channels_last);
        const AlignArgs<T, C> a{.input = data<T>(input),
                                .in = strides(input),
                                .boxes = boxes,
                                .pooled = mutable_data<T>(output),
                                .out = pooled_strides(s.channels, s.bins(), s.channels_last),
                                .share = share};
        AMSTEL_LAUNCH((roi_align_kernel<T, C, N>), grid_of(op, s.rois, share), kThreads, 0, stream,
                      a);
        check_launch(op);
      });
    });
  });
  return output;
}

Tensor roi_align_grad(Tensor grad, Tensor rois, double spatial_scale, int64_t sampling,
                      bool aligned, int64_t images, int64_t height, int64_t width,
                      bool channels_last) {
  const char* op = "roi_align_grad";
  const RoiShape s =
      check_region_grad(op, grad, rois, spatial_scale, images, height, width, channels_last);
  check_sampling(op, sampling);
  const CurrentStream stream(grad);
  Tensor grad_input = empty(grad, {images, s.channels, height, width}, s.dtype, s.channels_last);
  with_arithmetic(s, [&](auto c) {
    using C = decltype(c);
    Tensor memory = grad_input;
    const AlignBoxes<C> boxes =
        align_boxes<C>(op, rois, s, spatial_scale, sampling, aligned, stream, false, memory);
    with_float(s.dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      for_tiles<T>(op, grad, s, s.channels,
                   [&](const RoiLists& lists, dim3 grid, dim3 block, size_t shared) {
                     const AlignListArgs<C> list{boxes, lists};
                     AMSTEL_LAUNCH((align_list_kernel<C>), grid.x, kThreads, 0, stream, list);
                     check_launch(op);
                     const AlignGradArgs<T, C> a{.grad = data<T>(grad),
                                                 .grad_strides = strides(grad),
                                                 .boxes = boxes,
                                                 .lists = lists,
                                                 .grad_input = mutable_data<T>(grad_input),
                                                 .out = strides(grad_input),
                                                 .channels = s.channels,
                                                 .last = s.channels_last};
                     AMSTEL_LAUNCH((roi_align_grad_kernel<T, C>), grid, block, shared, stream, a);
                     check_launch(op);
                   });
    });
  });
  return grad_input;
}

Tensor ps_roi_pool(Tensor input, Tensor rois, double spatial_scale, int64_t pooled_height,
                   int64_t pooled_width) {
  const char* op = "ps_roi_pool";
  const RoiShape s =
      of_output(op, check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width));
  const CurrentStream stream(input);
  const Tensor table = ps_table(op, rois, s, spatial_scale, stream, true);
  Tensor output = empty_pooled(input, s, s.dtype);
  if (output.numel() == 0) return output;
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Share share = share_of(s.channels, s.bins(), false);
    const PsArgs<T> a{.input = data<T>(input),
                      .in = strides(input),
                      .table = {data<int32_t>(table), pooled_height, pooled_width},
                      .pooled = mutable_data<T>(output),
                      .out = pooled_strides(s.channels, s.bins(), s.channels_last),
                      .share = share};
    AMSTEL_LAUNCH((ps_roi_pool_kernel<T>), grid_of(op, s.rois, share), kThreads, 0, stream, a);
    check_launch(op);
  });
  return output;
}

Tensor ps_roi_pool_grad(Tensor grad, Tensor rois, double spatial_scale, int64_t images,
                        int64_t height, int64_t width, bool channels_last) {
  const char* op = "ps_roi_pool_grad";
  const RoiShape s =
      check_region_grad(op, grad, rois, spatial_scale, images, height, width, channels_last);
  const CurrentStream stream(grad);
  const int64_t channels = s.channels * s.bins();
  Tensor grad_input = empty(grad, {images, channels, height, width}, s.dtype, s.channels_last);
  const Tensor table = ps_table(op, rois, s, spatial_scale, stream, false);
  const BinTable bins{data<int32_t>(table), s.pooled_height, s.pooled_width};
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_tiles<T>(op, grad, s, channels,
                 [&](const RoiLists& lists, dim3 grid, dim3 block, size_t shared) {
                   const RoiListArgs list{bins, lists};
                   AMSTEL_LAUNCH(roi_list_kernel, grid.x, kThreads, 0, stream, list);
                   check_launch(op);
                   const PsGradArgs<T> a{.grad = data<T>(grad),
                                         .grad_strides = strides(grad),
                                         .table = bins,
                                         .lists = lists,
                                         .grad_input = mutable_data<T>(grad_input),
                                         .out = strides(grad_input),
                                         .channels = channels,
                                         .last = s.channels_last};
                   AMSTEL_LAUNCH((ps_roi_pool_grad_kernel<T>), grid, block, shared, stream, a);
                   check_launch(op);
                 });
  });
  return grad_input;
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("roi_align", TORCH_BOX(&amstel::cuda::roi_align));
  m.impl("roi_align_grad", TORCH_BOX(&amstel::cuda::roi_align_grad));
  m.impl("ps_roi_pool", TORCH_BOX(&amstel::cuda::ps_roi_pool));
  m.impl("ps_roi_pool_grad", TORCH_BOX(&amstel::cuda::ps_roi_pool_grad));
}
