// The tables of CPU kernels for pytest (tests/test_kernels.py), each instruction set on its own, on
// NumPy arrays and without torch. Arrays of bfloat16 are its bits, uint16. Sizes are checked here,
// since a kernel checks nothing; outputs are made by the caller or here, one thread runs it all.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/roi.h"
#include "cpu/isas.h"

namespace amstel {
namespace {

namespace py = pybind11;
using namespace cpu;
using Array = py::array;
using Optional = std::optional<py::array>;

std::vector<std::string> runnable() {
  std::vector<std::string> found;
  for (const Isa& isa : isas())
    if (isa.runs) found.push_back(isa.name);
  return found;
}

const Kernels& table(const std::string& name) {
  for (const Isa& isa : isas())
    if (isa.runs && name == isa.name) return isa.kernels();
  throw std::invalid_argument("isa: expected one of isas(), got " + name);
}

DtypeIndex dtype_of(const Array& a) {
  switch (a.dtype().kind()) {
    case 'f':
      return a.itemsize() == 8 ? kDouble : a.itemsize() == 4 ? kFloat : kHalf;
    case 'u':
      if (a.itemsize() == 2) return kBFloat16;
      [[fallthrough]];
    default:
      throw std::invalid_argument("dtype: expected float64, float32, float16 or uint16, got " +
                                  std::string(py::str(a.dtype())));
  }
}

// The bytes of a contiguous array of `count` numbers of `size` bytes.
void* data(const char* name, const Array& a, int64_t count, int64_t size) {
  if (!(a.flags() & Array::c_style) || a.size() != count || a.itemsize() != size)
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(count) +
                                " contiguous numbers of " + std::to_string(size) + " bytes, got " +
                                std::to_string(a.size()) + " of " + std::to_string(a.itemsize()));
  return const_cast<void*>(a.data());
}
void* data(const char* name, const Optional& a, int64_t count, int64_t size) {
  return a ? data(name, *a, count, size) : nullptr;
}

int64_t sum_size(DtypeIndex t) { return t == kDouble ? 8 : 4; }

Array empty(const Array& like, std::vector<py::ssize_t> shape) {
  return Array(like.dtype(), std::move(shape));
}

// y = row_scale (A + self_loops I) col_scale x, A in CSR
Array spmm(const std::string& isa, const Array& crow, const Array& col, const Array& x,
           const Optional& weight, const Optional& row_scale, const Optional& col_scale,
           double self_loops) {
  const DtypeIndex t = dtype_of(x);
  const int64_t rows = crow.size() - 1, edges = col.size(), features = x.shape(1);
  const int64_t nodes = x.shape(0), index = crow.itemsize(), element = x.itemsize();
  const void* const starts = data("crow", crow, rows + 1, index);
  const void* const cols = data("col", col, edges, index);
  for (int64_t k = 0; k < edges; ++k) {
    const int64_t j =
        index == 4 ? static_cast<const int32_t*>(cols)[k] : static_cast<const int64_t*>(cols)[k];
    if (j < 0 || j >= nodes) throw std::invalid_argument("col: out of range");
  }
  Array y = empty(x, {rows, features});
  const SpmmArgs a{.crow = starts,
                   .col = cols,
                   .weight = data("weight", weight, edges, element),
                   .row_scale = data("row_scale", row_scale, rows, sum_size(t)),
                   .col_scale = data("col_scale", col_scale, nodes, sum_size(t)),
                   .x = data("x", x, nodes * features, element),
                   .y = y.mutable_data(),
                   .x_stride = features,
                   .y_stride = features,
                   .features = features,
                   .self_loops = self_loops};
  table(isa).spmm[t][index == 8](a, 0, rows);
  return y;
}

// gates [rows, 4 inner], c [rows, inner] -> h, c, activated
std::tuple<Array, Array, Array> conv_lstm_gates(const std::string& isa, const Array& gates,
                                                const Array& c) {
  const DtypeIndex t = dtype_of(gates);
  const int64_t rows = c.shape(0), inner = c.shape(1), element = gates.itemsize();
  const bool own = c.itemsize() == element;
  Array h = empty(gates, {rows, inner}), c_out = empty(c, {rows, inner}),
        activated = empty(gates, {rows, 4 * inner});
  const ConvLstmArgs a{.gates = data("gates", gates, rows * 4 * inner, element),
                       .c = data("c", c, rows * inner, own ? element : sum_size(t)),
                       .h = h.mutable_data(),
                       .c_out = c_out.mutable_data(),
                       .activated = activated.mutable_data(),
                       .inner = inner};
  table(isa).conv_lstm_gates[t][own](a, 0, rows);
  return {h, c_out, activated};
}

// gates_x, gates_h [rows, 3 inner], h [rows, inner] -> h
Array conv_gru_gates(const std::string& isa, const Array& gates_x, const Array& gates_h,
                     const Array& h) {
  const DtypeIndex t = dtype_of(h);
  const int64_t rows = h.shape(0), inner = h.shape(1), element = h.itemsize();
  Array out = empty(h, {rows, inner});
  const ConvGruArgs a{.gates_x = data("gates_x", gates_x, rows * 3 * inner, element),
                      .gates_h = data("gates_h", gates_h, rows * 3 * inner, element),
                      .h = data("h", h, rows * inner, element),
                      .h_out = out.mutable_data(),
                      .inner = inner};
  table(isa).conv_gru_gates[t](a, 0, rows);
  return out;
}

// eta, other [items, channels, pixels] -> [items, pixels, 2 channels] of eta and factor (eta -
// other)
Array rim_input(const std::string& isa, const Array& eta, const Array& other, const Array& like,
                double factor, bool logistic) {
  const DtypeIndex t = dtype_of(like);
  const int64_t items = eta.shape(0), channels = eta.shape(1), pixels = eta.shape(2);
  const int64_t size = items * channels * pixels;
  Array out = empty(like, {items, pixels, 2 * channels});
  const auto planes = [&](const char* name, const Array& a) {
    return Planes{data(name, a, size, sum_size(t)), channels * pixels, pixels, 1};
  };
  const RimInputArgs a{.eta = planes("eta", eta),
                       .other = planes("other", other),
                       .factor = factor,
                       .residual = true,
                       .logistic = logistic,
                       .channels = channels,
                       .pixels = pixels,
                       .out = out.mutable_data()};
  table(isa).rim_input[t](a, 0, items * divide_up(pixels, kRimTile));
  return out;
}

// x [items, H, W, 2], sensitivities [items, coils, H, W, 2] -> S_c x, and sum_c conj(S_c) (S_c x)
std::tuple<Array, Array> coils(const std::string& isa, const Array& x, const Array& sensitivities) {
  const DtypeIndex t = dtype_of(x);
  if (t > kFloat) throw std::invalid_argument("x: expected float64 or float32");
  const int64_t items = x.shape(0), height = x.shape(1), width = x.shape(2);
  const int64_t coils = sensitivities.shape(1), pixels = 2 * height * width;
  Array images = empty(x, {items, coils, height, width, 2}),
        back = empty(x, {items, height, width, 2});
  MriArgs a{
      .x = data("x", x, items * pixels, x.itemsize()),
      .sensitivities = data("sensitivities", sensitivities, items * coils * pixels, x.itemsize()),
      .out = images.mutable_data(),
      .coils = coils,
      .height = height,
      .width = width,
      .factor = 1};
  table(isa).coil_expand[t](a, 0, items * coils);
  a.x = images.data();
  a.out = back.mutable_data();
  table(isa).coil_reduce[t](a, 0, items * height);
  return {images, back};
}

// x [items, H, W, channels], weight float32 [outputs, channels, 3, 3] -> [items, H, W, outputs]
Array winograd(const std::string& isa, const Array& x, const Array& weight) {
  const DtypeIndex t = dtype_of(x);
  if (t == kDouble) throw std::invalid_argument("x: expected float32, float16 or uint16");
  const WinogradShape shape{x.shape(0), x.shape(1), x.shape(2)};
  const int64_t channels = x.shape(3), outputs = weight.shape(0), tiles = shape.tiles();
  const int64_t blocks = divide_up(outputs, kWinogradColumns);
  std::vector<float> packed(blocks * kWinogradPlanes * kWinogradColumns * channels);
  const WinogradWeightArgs w{
      .weight = static_cast<const float*>(data("weight", weight, outputs * channels * 9, 4)),
      .packed = packed.data(),
      .outputs = outputs,
      .inputs = channels,
      .output_stride = 9 * channels,
      .input_stride = 9};
  const Kernels& k = table(isa);
  k.winograd_weight(w, 0, blocks);
  std::vector<float> workspace(kWinogradPlanes *
                               ((tiles + 8) * (channels + kWinogradColumns) + kWinogradLanes));
  Array out = empty(x, {shape.items, shape.height, shape.width, outputs});
  WinogradArgs a{};
  a.shape = shape;
  a.sources[0] = {data("x", x, shape.items * shape.height * shape.width * channels, x.itemsize()),
                  channels};
  a.packed = packed.data();
  a.outputs = outputs;
  a.out = out.mutable_data();
  k.winograd[t](a, workspace.data(), 0, tiles, 0, blocks);
  return out;
}

// x [channels, H, W] or, `last`, [H, W, channels]; boxes [K, 4] float64 -> maxima [K, channels, ph,
// pw] and where they are
std::tuple<Array, py::array_t<int32_t>> roi_pool(const std::string& isa, const Array& x, bool last,
                                                 const py::array_t<double>& boxes, int64_t ph,
                                                 int64_t pw, int which_tile) {
  const DtypeIndex t = dtype_of(x);
  const int64_t channels = x.shape(last ? 2 : 0), height = x.shape(last ? 0 : 1),
                width = x.shape(last ? 1 : 2), count = boxes.shape(0);
  const auto* const box = static_cast<const double*>(data("boxes", boxes, count * 4, 8));
  const int64_t row = roi::table_width(ph, pw);
  std::vector<int32_t> bins(count * row);
  std::vector<int64_t> all(count);
  for (int64_t k = 0; k < count; ++k) {
    const double with_image[5] = {0, box[4 * k], box[4 * k + 1], box[4 * k + 2], box[4 * k + 3]};
    roi::table_row<roi::Arithmetic::kDouble>(with_image, 1.0, 1, height, width, ph, pw,
                                             bins.data() + k * row);
    if (bins[k * row] < 0) throw std::invalid_argument("boxes: expected finite coordinates");
    all[k] = k;
  }
  Array out = empty(x, {count, channels, ph, pw});
  py::array_t<int32_t> argmax({count, channels, ph, pw});
  RoiArgs a{};
  a.input = data("x", x, channels * height * width, x.itemsize());
  a.in =
      last ? RoiStrides{0, 1, width * channels, channels} : RoiStrides{0, height * width, width, 1};
  a.channels = channels, a.height = height, a.width = width;
  a.pooled_height = ph, a.pooled_width = pw;
  a.table = bins.data();
  a.pooled = out.mutable_data();
  a.argmax = argmax.mutable_data();
  a.pooled_strides = {channels * ph * pw, ph * pw, 0, 1};
  RoiGroup group{};
  group.rows = height, group.cols = width;
  group.boxes = all.data(), group.count = count;
  const Kernels::Roi& kernel = table(isa).roi[t][which_tile];
  // The window, and a box of values and positions, twice.
  struct alignas(64) Line {
    char bytes[64];
  };
  std::vector<Line> scratch(
      divide_up((height * width + 4 * ph * pw) * kernel.tile * sum_size(t), 64) + 1);
  for (int64_t c = 0; c < channels; c += kernel.tile) kernel.pool(a, group, c, scratch.data());
  return {out, argmax};
}

}  // namespace
}  // namespace amstel

PYBIND11_MODULE(_kernels_test, m) {
  using namespace amstel;
  m.doc() = "The CPU kernels of each instruction set on NumPy arrays; built for tests only.";
  m.def("isas", &runnable, "Those of this build that this machine runs, the widest first.");
  m.def("vector_bytes", [](const std::string& isa) { return table(isa).vector_bytes; });
  m.def("spmm", &spmm, py::arg("isa"), py::arg("crow"), py::arg("col"), py::arg("x"),
        py::arg("weight") = py::none(), py::arg("row_scale") = py::none(),
        py::arg("col_scale") = py::none(), py::arg("self_loops") = 0.0);
  m.def("conv_lstm_gates", &conv_lstm_gates);
  m.def("conv_gru_gates", &conv_gru_gates);
  m.def("rim_input", &rim_input, py::arg("isa"), py::arg("eta"), py::arg("other"), py::arg("like"),
        py::arg("factor"), py::arg("logistic"));
  m.def("coils", &coils);
  m.def("winograd", &winograd);
  m.def("roi_pool", &roi_pool, py::arg("isa"), py::arg("x"), py::arg("last"), py::arg("boxes"),
        py::arg("ph"), py::arg("pw"), py::arg("which_tile") = 0);
}
