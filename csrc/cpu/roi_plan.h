// How an operator of ROI pooling runs on the CPU: the bins of every box, boxes shared out into
// windows and strips, and windows and tiles of channels to threads.
#pragma once
#include <algorithm>
#include <deque>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/roi_windows.h"

namespace amstel::cpu {

template <class F>
void with_arithmetic(roi::Arithmetic arithmetic, const F& f) {
  if (arithmetic == roi::Arithmetic::kDouble)
    f(std::integral_constant<roi::Arithmetic, roi::Arithmetic::kDouble>{});
  else if (arithmetic == roi::Arithmetic::kFloat)
    f(std::integral_constant<roi::Arithmetic, roi::Arithmetic::kFloat>{});
  else
    f(std::integral_constant<roi::Arithmetic, roi::Arithmetic::kHalf>{});
}

// The table of bins. Raises at the first box that is not valid; where nobody looks such a box is
// one without cells, of the first image.
inline std::vector<int32_t> bin_table(const char* op, const Tensor& rois, const RoiShape& s,
                                      double spatial_scale, bool look) {
  const int64_t width = roi::table_width(s.pooled_height, s.pooled_width);
  std::vector<int32_t> table(s.rois * width);
  with_float(op, "rois", rois, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* values = data<T>(rois);
    const int64_t row = rois.stride(0), column = rois.stride(1);
    with_arithmetic(s.arithmetic, [&](auto arithmetic) {
      constexpr roi::Arithmetic kArithmetic = decltype(arithmetic)::value;
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
  kValues,     // one for the boxes of an image where they share cells, else one for each box
  kPositions,  // the same, where positions are asked for
  kImage,      // one for each image, also where it has no box
  kBand        // the same, in scratch with whole rows
};

struct RoiPlan {
  std::vector<int32_t> table;
  std::vector<int64_t> order;  // the boxes by image, in the order given
  std::vector<RoiGroup> groups;
  std::deque<std::vector<RoiStrip>> strips;
  std::deque<std::vector<int32_t>> strip_of;
  int64_t cells = 0;       // of the largest window
  int64_t strip_rows = 0;  // of all strips of a group, twice where they have positions

  RoiPlan(const char* op, const Tensor& rois, const RoiShape& s, double spatial_scale,
          Windows windows, bool look = true)
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
      if (windows <= Windows::kPositions && g.count > 1)
        share_strips(g, s, windows == Windows::kPositions ? 2 : 1);
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
        add(n, all, first[n], first[n + 1]);
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

  // Gives the group strips, of so many numbers a row and channel, if bins then read fewer cells.
  void share_strips(RoiGroup& g, const RoiShape& s, int64_t sheets) {
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
    if (shared * sheets >= direct || rows > kMostRows) return;
    strip_rows = std::max(strip_rows, rows * sheets);
    g.num_strips = static_cast<int64_t>(found.size());
    g.strip_rows = rows;
    g.strips = strips.emplace_back(std::move(found)).data();
    g.strip_of = strip_of.emplace_back(std::move(of)).data();
  }
};

// How a call runs: scratch of `windows` windows and of `maps` numbers a bin, a tile of channels
// each.
struct RoiLaunch {
  const RoiShape& s;
  const RoiPlan& plan;
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

}  // namespace amstel::cpu
