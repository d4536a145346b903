// The ROI operators on the CPU: check, find the bins of every box, share boxes out into windows and
// windows to threads. The arithmetic is in kernels/roi_pool.inl.h, the meaning of the arguments in
// library.cpp.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/roi_windows.h"

namespace amstel::cpu {
namespace {

using roi::Arithmetic;

template <class F>
void with_arithmetic(Arithmetic arithmetic, const F& f) {
  if (arithmetic == Arithmetic::kDouble)
    f(std::integral_constant<Arithmetic, Arithmetic::kDouble>{});
  else if (arithmetic == Arithmetic::kFloat)
    f(std::integral_constant<Arithmetic, Arithmetic::kFloat>{});
  else
    f(std::integral_constant<Arithmetic, Arithmetic::kHalf>{});
}

// The table of bins. Raises at the first box that is not valid; where nobody looks such a box is
// one without cells, of the first image.
std::vector<int32_t> bin_table(const char* op, const Tensor& rois, const RoiShape& s,
                               double spatial_scale, bool look) {
  const int64_t width = roi::table_width(s.pooled_height, s.pooled_width);
  std::vector<int32_t> table(s.rois * width);
  with_float(op, "rois", rois, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* values = data<T>(rois);
    const int64_t row = rois.stride(0), column = rois.stride(1);
    with_arithmetic(s.arithmetic, [&](auto arithmetic) {
      constexpr Arithmetic kArithmetic = decltype(arithmetic)::value;
      using C = typename roi::Number<kArithmetic>::type;
      const C scale = roi::rounded<kArithmetic>(static_cast<C>(spatial_scale));
      const int64_t parts = threads_for(s.rois * width * 32);
      parallel_parts(parts, [&](int64_t p) {
        for (int64_t k = s.rois * p / parts; k < s.rois * (p + 1) / parts; ++k) {
          C box[5];
          for (int i = 0; i < 5; ++i) box[i] = static_cast<C>(values[k * row + i * column]);
          roi::table_row<kArithmetic>(box, scale, s.images, s.height, s.width, s.pooled_height,
                                      s.pooled_width, table.data() + k * width);
        }
      });
    });
    for (int64_t k = 0; k < s.rois; ++k) {
      if (table[k * width] >= 0) continue;
      if (!look && s.images > 0) {
        table[k * width] = 0;
        continue;
      }
      double box[5];
      for (int i = 0; i < 5; ++i) box[i] = static_cast<double>(values[k * row + i * column]);
      fail_roi(op, k, box, s.images);
    }
  });
  return table;
}

enum class Windows {
  kPool,    // one for the boxes of an image where they share cells, else one for each box
  kValues,  // the same, where positions are not asked for: with strips
  kImage,   // one for each image that has boxes
  kBand     // the same, in scratch with whole rows
};

struct Plan {
  std::vector<int32_t> table;
  std::vector<int64_t> order;  // the boxes by image, in the order given
  std::vector<RoiGroup> groups;
  std::deque<std::vector<RoiStrip>> strips;
  std::deque<std::vector<int32_t>> strip_of;
  int64_t cells = 0, strip_rows = 0;  // of the largest window, and of all strips of a group

  Plan(const char* op, const Tensor& rois, const RoiShape& s, double spatial_scale, Windows windows,
       bool look = true)
      : table(bin_table(op, rois, s, spatial_scale, look)), order(s.rois) {
    const int64_t width = roi::table_width(s.pooled_height, s.pooled_width);
    const std::vector<int64_t> first =
        by_image(s, order, [&](int64_t k) { return table[k * width]; });

    const auto bounds = [&](int64_t k) {
      const int32_t* row = table.data() + k * width + 1;
      const int32_t* col = row + 2 * s.pooled_height;
      return Bounds{row[0], row[2 * s.pooled_height - 1], col[0], col[2 * s.pooled_width - 1]};
    };
    const auto add = [&](int64_t image, const Bounds& b, int64_t begin, int64_t end) {
      groups.push_back(b.group(image, order, begin, end));
      RoiGroup& g = groups.back();
      cells = std::max(cells, g.rows * (windows == Windows::kBand ? s.width : g.cols));
      if (windows == Windows::kValues && g.count > 1) share_strips(g, s);
    };
    for (int64_t n = 0; n < s.images; ++n) {
      Bounds all;
      int64_t sum = 0;
      for (int64_t k = first[n]; k < first[n + 1]; ++k) {
        const Bounds b = bounds(order[k]);
        all.add(b);
        sum += b.cells();
      }
      if (windows == Windows::kImage || windows == Windows::kBand) {
        if (first[n] < first[n + 1]) add(n, all, first[n], first[n + 1]);
      } else if (all.cells() <= sum) {
        // Parts for all threads where the channels are few; they change no bit of any box.
        const int64_t boxes = first[n + 1] - first[n];
        const int64_t tile = kernels().roi[dtype_index(s.dtype)][0].tile;
        const int64_t tiles = std::max<int64_t>(1, divide_up(s.channels, tile));
        const int64_t threads = torch::stable::get_num_threads();
        const int64_t parts =
            std::clamp<int64_t>(divide_up(threads, tiles), 1, std::max<int64_t>(1, boxes / 32));
        for (int64_t p = 0; p < parts && boxes > 0; ++p)
          add(n, all, first[n] + boxes * p / parts, first[n] + boxes * (p + 1) / parts);
      } else {
        for (int64_t k = first[n]; k < first[n + 1]; ++k) add(n, bounds(order[k]), k, k + 1);
      }
    }
  }

  // Gives the group strips if bins then read fewer cells.
  void share_strips(RoiGroup& g, const RoiShape& s) {
    constexpr int64_t kMostRows = 12 << 10;  // what the second-level cache holds, about
    const int64_t ph = s.pooled_height, pw = s.pooled_width;
    std::unordered_map<int64_t, int32_t> numbers;
    std::vector<RoiStrip> found;
    std::vector<int32_t> of(g.count * pw, -1);
    int64_t direct = 0, shared = 0, rows = 0;
    for (int64_t k = 0; k < g.count; ++k) {
      const int32_t* row = table.data() + g.boxes[k] * roi::table_width(ph, pw) + 1;
      const int32_t* col = row + 2 * ph;
      int64_t bin_rows = 0;
      for (int64_t i = 0; i < ph; ++i) bin_rows += std::max(0, row[ph + i] - row[i]);
      if (bin_rows == 0) continue;
      for (int64_t j = 0; j < pw; ++j) {
        const int64_t begin = col[j], end = col[pw + j];
        if (begin >= end) continue;
        const auto [at, is_new] =
            numbers.try_emplace(begin * (s.width + 1) + end, static_cast<int32_t>(found.size()));
        if (is_new) found.push_back({row[0], row[2 * ph - 1], begin, end, 0});
        RoiStrip& strip = found[at->second];
        strip.row = std::min<int64_t>(strip.row, row[0]);
        strip.row_end = std::max<int64_t>(strip.row_end, row[2 * ph - 1]);
        of[k * pw + j] = at->second;
        direct += bin_rows * (end - begin);
        shared += bin_rows;
      }
    }
    for (RoiStrip& strip : found) {
      strip.first = rows;
      rows += strip.row_end - strip.row;
      shared += (strip.row_end - strip.row) * (strip.col_end - strip.col + 1);
    }
    if (shared >= direct || rows > kMostRows) return;
    strip_rows = std::max(strip_rows, rows);
    g.num_strips = static_cast<int64_t>(found.size());
    g.strip_rows = rows;
    g.strips = strips.emplace_back(std::move(found)).data();
    g.strip_of = strip_of.emplace_back(std::move(of)).data();
  }
};

// How a call runs: scratch of `windows` windows and of `maps` numbers a bin, a tile of channels
// each.
struct Launch {
  const RoiShape& s;
  const Plan& plan;
  int64_t windows, maps;
  int widest = 0;  // of the tiles, cpu/isa.h
  int64_t size = s.dtype == ScalarType::Double ? 8 : 4;
  const Kernels::Roi& kernel = choose();
  int64_t tiles = divide_up(s.channels, kernel.tile);

  int64_t bytes(const Kernels::Roi& k) const {
    return (windows * plan.cells + plan.strip_rows + maps * s.bins()) * k.tile * size;
  }
  const Kernels::Roi& choose() const {
    const auto& all = kernels().roi[dtype_index(s.dtype)];
    return all[bytes(all[widest]) > kMostScratch ? 2 : widest];
  }

  // The kernel over all groups and tiles; prepare(arguments, group) before each.
  template <class F>
  void run(decltype(Kernels::Roi::pool) Kernels::Roi::* which, RoiArgs args,
           const F& prepare) const {
    const int64_t items = static_cast<int64_t>(plan.groups.size()) * tiles;
    const int64_t work = (s.rois * s.bins() + s.images * plan.cells) * s.channels * size;
    const int64_t parts = std::min(threads_for(work), items);
    parallel_parts(parts, [&](int64_t p) {
      if (items == 0) return;
      const Scratch scratch(bytes(kernel));
      RoiArgs a = args;
      for (int64_t i = items * p / parts; i < items * (p + 1) / parts; ++i) {
        const RoiGroup& group = plan.groups[i / tiles];
        prepare(a, group);
        (kernel.*which)(a, group, i % tiles * kernel.tile, scratch.memory);
      }
    });
  }
  void run(decltype(Kernels::Roi::pool) Kernels::Roi::* which, const RoiArgs& args) const {
    run(which, args, [](RoiArgs&, const RoiGroup&) {});
  }
};

RoiArgs arguments(const RoiShape& s, const Plan& plan) {
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
  const Plan plan(op, rois, s, spatial_scale, need_argmax ? Windows::kPool : Windows::kValues,
                  check);
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
  Launch{s, plan, 1, 2}.run(&Kernels::Roi::pool, a);
  return {output, argmax};
}

Tensor roi_pool_grad(Tensor grad, Tensor argmax, Tensor rois, double spatial_scale, int64_t images,
                     int64_t height, int64_t width, bool channels_last) {
  const char* op = "roi_pool_grad";
  const RoiShape s = check_rois_of_grad(op, grad, argmax, rois, spatial_scale, images, height,
                                        width, channels_last);
  grad = bins_in_line(grad);
  argmax = bins_in_line(argmax);
  const Plan plan(op, rois, s, spatial_scale, Windows::kBand);
  Tensor grad_input = zero_images(grad, s, s.channels);
  bool bad = false;
  RoiArgs a = arguments(s, plan);
  a.grad_strides = image_strides(s);
  a.pooled = const_cast<void*>(grad.const_data_ptr());
  a.pooled_strides = strides(grad);
  a.argmax = const_cast<int32_t*>(data<int32_t>(argmax));
  a.argmax_strides = strides(argmax);
  a.grad_input = grad_input.mutable_data_ptr();
  a.bad_argmax = &bad;
  Launch{s, plan, 1, 0}.run(&Kernels::Roi::pool_grad, a);
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
  const Plan plan(op, rois, s, spatial_scale, Windows::kValues, check);
  // The narrower tile, since memory is what the caller saves.
  const Launch launch{s, plan, 1, 1, 1};
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
  const Plan plan(op, rois, s, spatial_scale, Windows::kImage);
  Tensor grad_input = need_input ? zero_images(input, s, s.channels) : empty(input, {0});
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
  a.grad_strides = image_strides(s);
  Launch{s, plan, 2, 2}.run(
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
