// The ROI operators on CUDA: check, allocate, launch.  The kernels and how their threads share the
// work are in kernels/roi_pool.cuh, the meaning of the arguments in library.cpp.
//
// Boxes are looked at where they come in: roi_pool and roi_match wait for the table of bins and
// raise at a box that is not valid, except under CUDA graph capture, or note its number in `found`
// and wait for nothing.  Such a box is pooled to 0 and gets no gradient.  The gradients come with
// boxes that have been looked at.  An argmax that is not in its bin points nowhere.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "common/roi_pool_check.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/roi_pool.cuh"
#include "cuda/kernels/roi_pool_grad.cuh"
#include "cuda/roi_launch.cuh"

namespace amstel::cuda {
namespace {

using roi::Arithmetic;

// roi_match_grad pools again into this many bytes, or as many as kSliceUnit channels take.
#ifdef AMSTEL_EMULATED
constexpr int64_t kMatchScratch = 1 << 14;  // so that the tests meet several slices
#else
constexpr int64_t kMatchScratch = 64 << 20;
#endif
constexpr int64_t kSliceUnit = 32;

// ---- The table of bins ----

// f(std::integral_constant<Arithmetic, ...>{}), of those that rois in R may have.
template <class R, class F>
void with_arithmetic(Arithmetic arithmetic, const F& f) {
  constexpr bool kDouble = std::is_same_v<R, double> || std::is_same_v<R, __nv_bfloat16>;
  if constexpr (kDouble) {
    if (arithmetic == Arithmetic::kDouble)
      return f(std::integral_constant<Arithmetic, Arithmetic::kDouble>{});
  }
  if constexpr (std::is_same_v<R, __half>) {
    if (arithmetic == Arithmetic::kHalf)
      return f(std::integral_constant<Arithmetic, Arithmetic::kHalf>{});
  }
  if constexpr (!std::is_same_v<R, double>)
    f(std::integral_constant<Arithmetic, Arithmetic::kFloat>{});
}

Tensor bin_table(const char* op, const Tensor& rois, const RoiShape& s, double spatial_scale,
                 cudaStream_t stream, bool look = false,
                 const std::optional<Tensor>& found = std::nullopt) {
  Tensor table =
      empty(rois, {s.rois, roi::table_width(s.pooled_height, s.pooled_width)}, ScalarType::Int);
  if (s.rois == 0) return table;
  const bool note = look && found.has_value();
  if (note) check_vector(op, rois, "found", *found, 1, ScalarType::Long);
  look = look && !note && !is_capturing(stream);
  const Tensor first_bad = note ? *found : empty(rois, {look ? 1 : 0}, ScalarType::Long);
  auto* const bad = note || look ? mutable_data<unsigned long long>(first_bad) : nullptr;
  if (look) cudaMemsetAsync(bad, 0xff, sizeof(*bad), stream);
  with_float(rois.scalar_type(), [&](auto type) {
    using R = typename decltype(type)::type;
    const RoiTableArgs<R> a{.rois = data<R>(rois),
                            .row = rois.stride(0),
                            .col = rois.stride(1),
                            .scale = spatial_scale,
                            .images = s.images,
                            .height = s.height,
                            .width = s.width,
                            .pooled_height = s.pooled_height,
                            .pooled_width = s.pooled_width,
                            .count = s.rois,
                            .table = mutable_data<int32_t>(table),
                            .first_bad = bad};
    with_arithmetic<R>(s.arithmetic, [&](auto arithmetic) {
      AMSTEL_LAUNCH((roi_table_kernel<R, decltype(arithmetic)::value>),
                    blocks(op, divide_up(s.rois, kTableThreads)), kTableThreads, 0, stream, a);
      check_launch(op);
    });
    if (look) raise_first_bad(op, stream, bad, a, s);
  });
  return table;
}

// A query [C, bins] as the kernels read it: in the order of the map's channels.
struct Query {
  Tensor tensor;
  PooledStrides strides;
  Query(const Tensor& query, const RoiShape& s)
      : tensor(query), strides(pooled_strides(s.channels, s.bins(), s.channels_last)) {
    if (s.channels_last)
      tensor = torch::stable::contiguous(
          torch::stable::transpose(torch::stable::view(query, {s.channels, s.bins()}), 0, 1));
  }
};

// ---- Launches ----

// Of `channels` channels from `first` on.
template <class T>
void pool(const char* op, cudaStream_t stream, const Tensor& input, const RoiShape& s,
          const BinTable& table, int64_t first, int64_t channels, T* pooled, int32_t* argmax) {
  if (s.rois * channels == 0) return;
  with_width<T>(s.channels_last, channels, alignment_of(input), [&](auto width) {
    constexpr int N = decltype(width)::value;
    const Share share = share_of(channels / N, s.bins(), s.channels_last);
    const RoiPoolArgs<T> a{.input = data<T>(input) + first * input.stride(1),
                           .in = strides(input),
                           .width = s.width,
                           .table = table,
                           .pooled = pooled,
                           .argmax = argmax,
                           .out = pooled_strides(channels, s.bins(), s.channels_last),
                           .share = share};
    const dim3 grid = grid_of(op, s.rois, share);
    if (argmax) {
      AMSTEL_LAUNCH((roi_pool_kernel<T, N, true>), grid, kThreads, 0, stream, a);
    } else {
      AMSTEL_LAUNCH((roi_pool_kernel<T, N, false>), grid, kThreads, 0, stream, a);
    }
    check_launch(op);
  });
}

template <class T>
void pool_grad(const char* op, cudaStream_t stream, const Tensor& like, const RoiShape& s,
               const BinTable& table, RoiGradArgs<T> a) {
  a.pooled_width = s.pooled_width;
  for_tiles<T>(
      op, like, s, a.channels, [&](const RoiLists& lists, dim3 grid, dim3 block, size_t shared) {
        AMSTEL_LAUNCH(roi_list_kernel, grid.x, kThreads, 0, stream, RoiListArgs{table, lists});
        check_launch(op);
        a.lists = lists;
        if (a.query) {
          AMSTEL_LAUNCH((roi_pool_grad_kernel<T, true>), grid, block, shared, stream, a);
        } else {
          AMSTEL_LAUNCH((roi_pool_grad_kernel<T, false>), grid, block, shared, stream, a);
        }
        check_launch(op);
      });
}

template <class T>
void sum_rows(const char* op, cudaStream_t stream, const SumRowsArgs<T>& a) {
  if (a.along * a.across == 0) return;
  const dim3 grid(blocks(op, divide_up(a.across, kThreads)), grid_yz(a.along));
  AMSTEL_LAUNCH((sum_rows_kernel<T>), grid, kThreads, 0, stream, a);
  check_launch(op);
}

}  // namespace

std::tuple<Tensor, Tensor> roi_pool(Tensor input, Tensor rois, double spatial_scale,
                                    int64_t pooled_height, int64_t pooled_width, bool need_argmax,
                                    bool check, std::optional<Tensor> found) {
  const char* op = "roi_pool";
  const RoiShape s = check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width);
  const CurrentStream stream(input);
  const Tensor table = bin_table(op, rois, s, spatial_scale, stream, check, found);
  Tensor output = empty_pooled(input, s, s.dtype);
  Tensor argmax =
      need_argmax ? empty_pooled(input, s, ScalarType::Int) : empty(input, {0}, ScalarType::Int);
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    pool<T>(op, stream, input, s, {data<int32_t>(table), pooled_height, pooled_width}, 0,
            s.channels, mutable_data<T>(output),
            need_argmax ? mutable_data<int32_t>(argmax) : nullptr);
  });
  return {output, argmax};
}

Tensor roi_pool_grad(Tensor grad, Tensor argmax, Tensor rois, double spatial_scale, int64_t images,
                     int64_t height, int64_t width, bool channels_last) {
  const char* op = "roi_pool_grad";
  const RoiShape s = check_rois_of_grad(op, grad, argmax, rois, spatial_scale, images, height,
                                        width, channels_last);
  const CurrentStream stream(grad);
  Tensor grad_input = empty(grad, {images, s.channels, height, width}, s.dtype, s.channels_last);
  const Tensor table = bin_table(op, rois, s, spatial_scale, stream);
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    pool_grad<T>(op, stream, grad, s, {data<int32_t>(table), s.pooled_height, s.pooled_width},
                 {.grad = data<T>(grad),
                  .grad_strides = strides(grad),
                  .argmax = data<int32_t>(argmax),
                  .argmax_strides = strides(argmax),
                  .grad_input = mutable_data<T>(grad_input),
                  .out = strides(grad_input),
                  .channels = s.channels,
                  .last = s.channels_last});
  });
  return grad_input;
}

Tensor roi_pool_gather(Tensor input, Tensor argmax, Tensor rois) {
  const char* op = "roi_pool_gather";
  AMSTEL_CHECK(argmax.dim() == 4, op, ": `argmax` must be an int32 [K, C, ph, pw], got ",
               describe(argmax));
  const RoiShape s = check_rois(op, input, rois, 1, argmax.size(2), argmax.size(3));
  check_pooled(op, "argmax", input, argmax, s, ScalarType::Int);
  const CurrentStream stream(input);
  RoiShape one = s;  // only the images are asked for
  one.pooled_height = one.pooled_width = 1;
  const Tensor table = bin_table(op, rois, one, 1, stream);
  Tensor out = empty_pooled(input, s, s.dtype);
  if (out.numel() == 0) return out;
  // Cells of a map at one distance from each other.
  if (input.stride(2) != input.stride(3) * s.width) input = torch::stable::contiguous(input);
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Share share = share_of(s.channels, s.bins(), s.channels_last);
    const RoiGatherArgs<T> a{.input = data<T>(input),
                             .item = input.stride(0),
                             .channel = input.stride(1),
                             .cell = input.stride(3),
                             .cells = s.height * s.width,
                             .table = {data<int32_t>(table), 1, 1},
                             .pooled_width = s.pooled_width,
                             .argmax = data<int32_t>(argmax),
                             .from = strides(argmax),
                             .pooled = mutable_data<T>(out),
                             .out = pooled_strides(s.channels, s.bins(), s.channels_last),
                             .share = share};
    AMSTEL_LAUNCH((roi_pool_gather_kernel<T>), grid_of(op, s.rois, share), kThreads, 0, stream, a);
    check_launch(op);
  });
  return out;
}

Tensor roi_match(Tensor input, Tensor rois, Tensor query, double spatial_scale,
                 int64_t pooled_height, int64_t pooled_width, bool check,
                 std::optional<Tensor> found) {
  const char* op = "roi_match";
  const RoiShape s = check_rois(op, input, rois, spatial_scale, pooled_height, pooled_width);
  check_query(op, input, query, s);
  const CurrentStream stream(input);
  const Tensor table = bin_table(op, rois, s, spatial_scale, stream, check, found);
  const ScalarType sum = sum_dtype(s.dtype);
  Tensor out = empty(input, {s.rois, 2}, sum);
  if (s.rois == 0) return out;
  const Query q(query, s);
  Alignment alignment = alignment_of(input);
  alignment.pointer(q.tensor.const_data_ptr());
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    with_width<T>(s.channels_last, s.channels, alignment, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const Share share = share_of(s.channels / N, s.bins(), s.channels_last);
      const int64_t parts = divide_up(share.accesses, match_part(share));
      const Tensor sums = empty(input, {parts, s.rois, 2}, sum);
      if (parts > 0) {
        const RoiMatchArgs<T> a{.input = data<T>(input),
                                .in = strides(input),
                                .table = {data<int32_t>(table), pooled_height, pooled_width},
                                .query = data<T>(q.tensor),
                                .of_query = q.strides,
                                .sums = mutable_data<S>(sums),
                                .boxes = s.rois,
                                .parts = parts,
                                .share = share};
        const dim3 grid(blocks(op, s.rois), grid_yz(parts));
        AMSTEL_LAUNCH((roi_match_kernel<T, N>), grid, kThreads, 0, stream, a);
        check_launch(op);
      }
      sum_rows<S>(op, stream,
                  {data<S>(sums), parts, nullptr, 0, mutable_data<S>(out), 1, 2 * s.rois, 0, 1});
    });
  });
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
  const CurrentStream stream(input);
  const Tensor table = bin_table(op, rois, s, spatial_scale, stream);
  Tensor grad_input =
      need_input ? empty(input, {s.images, s.channels, s.height, s.width}, s.dtype, s.channels_last)
                 : empty(input, {0});
  Tensor grad_query = empty(input, {need_query ? query.numel() : 0});
  if (s.channels == 0 || !(need_input || need_query)) return {grad_input, grad_query};
  const Query q(query, s);
  // Maps of one slice of the channels after the other, so that no sum is cut.
  const int64_t bins = s.bins(), size = static_cast<int64_t>(input.element_size());
  const int64_t per_channel = std::max<int64_t>(1, s.rois * bins * (size + (need_input ? 4 : 0)));
  const int64_t slice = std::min(
      s.channels, std::max<int64_t>(1, kMatchScratch / per_channel / kSliceUnit) * kSliceUnit);
  const Tensor pooled = empty(input, {s.rois * slice * bins});
  const Tensor argmax = empty(input, {need_input ? s.rois * slice * bins : 0}, ScalarType::Int);
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    const BinTable bin_table{data<int32_t>(table), pooled_height, pooled_width};
    for (int64_t first = 0; first < s.channels; first += slice) {
      const int64_t channels = std::min(slice, s.channels - first);
      const PooledStrides of_pooled = pooled_strides(channels, bins, s.channels_last);
      int32_t* const cells = need_input ? mutable_data<int32_t>(argmax) : nullptr;
      pool<T>(op, stream, input, s, bin_table, first, channels, mutable_data<T>(pooled), cells);
      if (need_input) {
        const RoiStrides out = strides(grad_input);
        pool_grad<T>(op, stream, input, s, bin_table,
                     {.grad = data<T>(pooled),
                      .grad_strides = strides(of_pooled, pooled_width),
                      .argmax = cells,
                      .argmax_strides = strides(of_pooled, pooled_width),
                      .query = data<T>(q.tensor) + first * q.strides.channel,
                      .of_query = q.strides,
                      .coefficients = data<S>(coefficients),
                      .grad_input = mutable_data<T>(grad_input) + first * out.channel,
                      .out = out,
                      .channels = channels,
                      .last = s.channels_last});
      }
      if (need_query) {
        SumRowsArgs<T> a{.rows = data<T>(pooled),
                         .count = s.rois,
                         .weight = data<S>(coefficients),
                         .weight_stride = 2,
                         .out = mutable_data<T>(grad_query) + first * bins,
                         .along = 1,
                         .across = channels * bins,
                         .out_along = 0,
                         .out_across = 1};
        if (s.channels_last) {
          a.along = bins, a.out_along = 1;
          a.across = channels, a.out_across = bins;
        }
        sum_rows(op, stream, a);
      }
    }
  });
  return {grad_input, grad_query};
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("roi_pool", TORCH_BOX(&amstel::cuda::roi_pool));
  m.impl("roi_pool_grad", TORCH_BOX(&amstel::cuda::roi_pool_grad));
  m.impl("roi_pool_gather", TORCH_BOX(&amstel::cuda::roi_pool_gather));
  m.impl("roi_match", TORCH_BOX(&amstel::cuda::roi_match));
  m.impl("roi_match_grad", TORCH_BOX(&amstel::cuda::roi_match_grad));
}
