// Winograd convolutions on the CPU: check, allocate, run threads. The arithmetic is in
// kernels/winograd.inl.h, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "common/conv_lstm_check.h"
#include "common/rows.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/huge_pages.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace amstel::cpu {
namespace {

constexpr int64_t kColumns = kWinogradColumns, kPlanes = kWinogradPlanes;

// Blocks of columns for `outputs` channels.
int64_t blocks_of(int64_t outputs, bool gates) {
  return gates ? divide_up(outputs / 4, kWinogradGates) : divide_up(outputs, kColumns);
}

int64_t packed_size(int64_t inputs, int64_t outputs, bool gates) {
  return blocks_of(outputs, gates) * kPlanes * kColumns * inputs;
}

void check_image(const char* op, const char* name, const Tensor& t) {
  const auto dtype = t.scalar_type();
  AMSTEL_CHECK(t.dim() == 4 && t.is_contiguous() &&
                   (dtype == ScalarType::Float || dtype == ScalarType::BFloat16 ||
                    dtype == ScalarType::Half),
               op, ": `", name,
               "` must be a contiguous float32, bfloat16 or float16 [N, H, W, channels], got ",
               describe(t));
}

void check_like(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  AMSTEL_CHECK(t.dim() == 4 && t.is_contiguous() && t.scalar_type() == like.scalar_type() &&
                   t.size(0) == like.size(0) && t.size(1) == like.size(1) &&
                   t.size(2) == like.size(2),
               op, ": `", name, "` must be contiguous with the dtype, items and size of ",
               describe(like), ", got ", describe(t));
}

void check_packed(const char* op, const Tensor& packed, int64_t inputs, int64_t outputs,
                  bool gates) {
  const int64_t size = packed_size(inputs, outputs, gates);
  AMSTEL_CHECK(packed.dim() == 1 && packed.scalar_type() == ScalarType::Float &&
                   packed.is_contiguous() && packed.size(0) == size,
               op, ": `packed` must be the winograd_weight of ", inputs, " to ", outputs,
               " channels, Float [", size, "], got ", describe(packed));
}

// Runs tiles in groups, groups on threads; where there are fewer groups than threads, the blocks of
// columns are shared out as well. What is added in which order depends on neither.
void run(const WinogradArgs& args, ScalarType dtype, const Tensor& like, bool gates) {
  const int64_t inputs = args.sources[0].channels + args.sources[1].channels;
  const int64_t tiles = args.shape.tiles(), blocks = blocks_of(args.outputs, gates);
  if (tiles == 0 || blocks == 0) return;
  const int64_t work = tiles * blocks * kPlanes * kColumns * inputs;
  const int64_t threads = work < (1 << 18) ? 1 : torch::stable::get_num_threads();
  // Transformed tiles and products of a group stay in a second-level cache; weights that no cache
  // holds are read seldom, once a group.
  const bool heavy = packed_size(inputs, args.outputs, gates) > 1 << 22;
  const int64_t fits = (1 << 20) / (kPlanes * 4 * (inputs + kColumns));
  const int64_t group = heavy ? 64 : std::clamp<int64_t>(fits, 16, 64);
  int64_t groups = divide_up(tiles, group);
  // Threads share the tiles, or where those are few the blocks of columns.
  if (groups < threads && blocks < 2 * threads) groups = std::min(threads, divide_up(tiles, 8));
  if (groups > threads && groups < 8 * threads) groups = divide_up(groups, threads) * threads;
  const int64_t shares = groups >= threads ? 1 : std::min(blocks, divide_up(threads, groups));
  const int64_t rows = divide_up(tiles, groups) + 8;
  const int64_t size = kPlanes * (rows * (inputs + kColumns) + kWinogradLanes);
  const int64_t parts = std::min(threads, groups * shares);
  Tensor workspace = empty(like, {parts, size}, ScalarType::Float);
  float* const memory = mutable_data<float>(workspace);
  const auto kernel = kernels().winograd[dtype_index(dtype)];
  parallel_parts(parts, [&](int64_t p) {
    for (int64_t task = groups * shares * p / parts; task < groups * shares * (p + 1) / parts;
         ++task) {
      const int64_t g = task / shares, share = task % shares;
      // Groups of nearly the same size, so that the last is no remnant.
      kernel(args, memory + p * size, tiles * g / groups, tiles * (g + 1) / groups,
             blocks * share / shares, blocks * (share + 1) / shares);
    }
  });
}

WinogradShape shape_of(const Tensor& image) {
  return {image.size(0), image.size(1), image.size(2)};
}

}  // namespace

Tensor winograd_weight(Tensor weight, bool transposed, bool gates) {
  const char* op = "winograd_weight";
  AMSTEL_CHECK(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 &&
                   weight.scalar_type() == ScalarType::Float && weight.is_contiguous(),
               op, ": `weight` must be a contiguous Float [O, I, 3, 3], got ", describe(weight));
  const int64_t o = weight.size(0), i = weight.size(1);
  AMSTEL_CHECK(!gates || (o % 4 == 0 && !transposed), op,
               ": gates need 4 * hidden output channels and no transposition, got ", o);
  const int64_t outputs = transposed ? i : o, inputs = transposed ? o : i;
  const int64_t blocks = blocks_of(outputs, gates);
  Tensor packed = empty(weight, {packed_size(inputs, outputs, gates)});
  want_huge_pages(packed);
  if (packed.numel() == 0) return packed;
  const WinogradWeightArgs args{.weight = data<float>(weight),
                                .packed = mutable_data<float>(packed),
                                .outputs = outputs,
                                .inputs = inputs,
                                .output_stride = transposed ? 9 : i * 9,
                                .input_stride = transposed ? i * 9 : 9,
                                .flip = transposed,
                                .gates = gates,
                                .stream = packed.numel() * 4 >= kAllCaches};
  const int64_t parts = std::min(blocks, threads_for(packed.numel() * 4));
  parallel_parts(parts, [&](int64_t p) {
    kernels().winograd_weight(args, blocks * p / parts, blocks * (p + 1) / parts);
  });
  return packed;
}

void winograd_conv(Tensor x, Tensor packed, OptionalTensor bias, Tensor out) {
  const char* op = "winograd_conv";
  check_image(op, "x", x);
  check_like(op, "out", out, x);
  check_packed(op, packed, x.size(3), out.size(3), false);
  if (bias) check_vector(op, x, "bias", *bias, out.size(3), ScalarType::Float);
  WinogradArgs args{};
  args.shape = shape_of(x);
  args.sources[0] = {x.const_data_ptr(), x.size(3)};
  args.packed = data<float>(packed);
  args.bias = data<float>(bias);
  args.outputs = out.size(3);
  args.out = out.mutable_data_ptr();
  run(args, x.scalar_type(), x, false);
}

void winograd_lstm(Tensor h, OptionalTensor x, Tensor packed, OptionalTensor gates,
                   OptionalTensor bias, Tensor c, OptionalTensor peephole, Tensor h_out,
                   Tensor c_out, OptionalTensor activated) {
  const char* op = "winograd_lstm";
  check_image(op, "h", h);
  if (x) check_like(op, "x", *x, h);
  const int64_t hidden = h.size(3);
  check_packed(op, packed, hidden + (x ? x->size(3) : 0), 4 * hidden, true);
  const auto check = [&](const char* name, const Tensor& t, int64_t width, ScalarType dtype) {
    AMSTEL_CHECK(
        t.is_contiguous() && t.scalar_type() == dtype && t.dim() == 4 && t.size(0) == h.size(0) &&
            t.size(1) == h.size(1) && t.size(2) == h.size(2) && t.size(3) == width,
        op, ": `", name, "` must be a contiguous ", torch::headeronly::toString(dtype), " [",
        h.size(0), ", ", h.size(1), ", ", h.size(2), ", ", width, "], got ", describe(t));
  };
  if (gates) check("gates", *gates, 4 * hidden, h.scalar_type());
  if (bias) check_vector(op, h, "bias", *bias, 4 * hidden, ScalarType::Float);
  check("c", c, hidden, ScalarType::Float);
  if (peephole) check_rows(op, h, "peephole", *peephole, 3, hidden, ScalarType::Float);
  check("h_out", h_out, hidden, h.scalar_type());
  check("c_out", c_out, hidden, ScalarType::Float);
  if (activated) check("activated", *activated, 4 * hidden, h.scalar_type());
  AMSTEL_CHECK(h.numel() == 0 || h.const_data_ptr() != h_out.const_data_ptr(), op,
               ": `h_out` must not be `h`, whose neighbors are read");
  WinogradArgs args{};
  args.shape = shape_of(h);
  args.sources[0] = {h.const_data_ptr(), hidden};
  if (x) args.sources[1] = {x->const_data_ptr(), x->size(3)};
  args.packed = data<float>(packed);
  args.bias = data<float>(bias);
  args.outputs = 4 * hidden;
  args.lstm = {pointer(gates),
               nullptr,
               c.const_data_ptr(),
               pointer(peephole),
               h_out.mutable_data_ptr(),
               c_out.mutable_data_ptr(),
               activated ? activated->mutable_data_ptr() : nullptr,
               hidden};
  run(args, h.scalar_type(), h, true);
}

void winograd_planes(Tensor image, bool gradient, int64_t first, int64_t offset, Tensor out) {
  const char* op = "winograd_planes";
  check_image(op, "image", image);
  const WinogradShape shape = shape_of(image);
  const int64_t channels = image.size(3);
  AMSTEL_CHECK(out.dim() == 3 && out.size(0) == kPlanes && out.is_contiguous() &&
                   out.scalar_type() == ScalarType::Float && offset >= 0 &&
                   offset + channels <= out.size(2) && first >= 0 &&
                   first + out.size(1) <= shape.tiles(),
               op, ": `out` must be a contiguous Float [36, tiles, width] within ", shape.tiles(),
               " tiles, got ", describe(out), ", first ", first, ", offset ", offset);
  const int64_t tiles = out.size(1);
  if (tiles == 0 || channels == 0) return;
  const int64_t parts = std::min(tiles, threads_for(out.numel() * 4));
  Tensor scratch = empty(out, {parts, kPlanes * (channels + kWinogradLanes)});
  const auto kernel = kernels().winograd_planes[dtype_index(image.scalar_type())][gradient];
  parallel_parts(parts, [&](int64_t p) {
    const WinogradPlanesArgs args{
        .shape = shape,
        .image = image.const_data_ptr(),
        .channels = channels,
        .planes = mutable_data<float>(out),
        .scratch = mutable_data<float>(scratch) + p * kPlanes * (channels + kWinogradLanes),
        .plane = tiles * out.size(2),
        .width = out.size(2),
        .offset = offset,
        .first = first};
    kernel(args, tiles * p / parts, tiles * (p + 1) / parts);
  });
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("winograd_weight", TORCH_BOX(&amstel::cpu::winograd_weight));
  m.impl("winograd_conv", TORCH_BOX(&amstel::cpu::winograd_conv));
  m.impl("winograd_lstm", TORCH_BOX(&amstel::cpu::winograd_lstm));
  m.impl("winograd_planes", TORCH_BOX(&amstel::cpu::winograd_planes));
}
