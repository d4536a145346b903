// The table of CPU kernels, chosen once at load time for the instruction set of this machine.
#pragma once
#include <cstdint>

#include "../common/numbers.h"

namespace amstel::cpu {

enum DtypeIndex { kDouble, kFloat, kBFloat16, kHalf, kNumDtypes };

// Arguments of the torch-free SpMM kernels. Element types are those of the table entry; scales are
// double for double and float for the rest. Pointers marked ? may be null.
struct SpmmArgs {
  const void *crow, *col, *edge /*?*/, *weight /*?*/, *row_scale /*?*/, *col_scale /*?*/;
  const void *x, *bias /*?*/;
  void* y;
  int64_t x_stride, y_stride, features;
  double self_loops;
  bool fetch;  // rows ahead: x outgrows a cache
  bool relu;
  bool stream;  // y is larger than all caches, and whole vectors begin where they may
};

// `crow`, `col`, `edge` are those of the transposed matrix; row_scale belongs to the rows of grad.
struct SpmmGradArgs {
  const void *crow, *col, *edge, *weight /*?*/, *row_scale /*?*/, *col_scale /*?*/;
  const void *grad, *x;
  void *grad_x /*?*/, *grad_weight, *dot, *loop /*?*/;
  int64_t grad_stride, x_stride, features;
  double self_loops;
  bool prefetch;
  bool accumulate;  // add to grad_weight, dot and loop: a later item of the batch
};

struct EpilogueArgs {
  const void *grad, *output /*?*/;
  void *grad_in /*?*/, *sum;  // sum over the given rows, [features]
  int64_t grad_stride, output_stride, features;
};

// Gates of a ConvLSTM: rows of 4 * inner gates and of inner cells. Peepholes [3, inner] and sums
// are double for double and float for the rest; cell states are of that type or of that of the
// gates.
struct ConvLstmArgs {
  const void *gates, *more /*?*/, *c, *peephole /*?*/;
  void *h, *c_out, *activated /*?*/;
  int64_t inner;
  bool stream;  // activated is larger than all caches, and whole vectors begin where they may
};

struct ConvLstmGradArgs {
  const void *activated, *c, *c_out, *peephole /*?*/, *grad_h /*?*/, *grad_h_more /*?*/,
      *grad_c /*?*/;
  void *grad_c_out, *grad_gates, *bias_sum /*?*/, *peephole_sum /*?*/;  // [4, inner], [3, inner]
  int64_t inner;
};

// Gates of a ConvGRU: rows of 3 * inner gates and of inner cells.
struct ConvGruArgs {
  const void *gates_x, *gates_h, *h;
  void *h_out, *activated /*?*/;  // [rows, 4, inner]: r, z, n and the n gate of h
  int64_t inner;
  bool stream;  // as above
};

struct ConvGruGradArgs {
  const void *grad, *activated, *h;
  void *grad_gates_x, *grad_gates_h, *grad_h;
  int64_t inner;
};

constexpr int64_t kRimTile = 256;  // pixels at a time

// A tensor [items, channels, pixels], its strides in elements; broadcast where a stride is 0.
struct Planes {
  const void* data;
  int64_t item, channel, pixel;
};

// The input of a RIM's network: [eta, factor precision[item] Psi'(eta) g], channels last, with g
// `other`, or mask (Psi(eta) - other) of a `residual`. Elements of out and grad are those of the
// table entry, the rest its sums.
struct RimInputArgs {
  Planes eta, other, mask /*?*/;
  const void* precision /*?*/;
  double factor;
  bool residual, logistic;
  int64_t channels, pixels;
  void* out;
  // The gradient: `grad` of out, and results with the strides of `result`.
  const void* grad;
  Planes result;
  void *grad_eta, *grad_other;
};

// Separable resampling between planes of height x width and of `scale` times that.
constexpr int64_t kMaxScale = 64, kMaxTaps = 4 * kMaxScale;
// Numbers of a phase of a row: width + 3 that are used and room to read on.
AMSTEL_EVERYWHERE constexpr int64_t bicubic_phase(int64_t width) { return (width + 34) / 16 * 16; }
struct BicubicArgs {
  const void *in, *minus /*?*/;  // subtracted from the smaller image
  void* out;
  const void* weight;  // [4 scale], of the pixels from scale * i + first on
  int64_t first, scale, height, width;
  // Up: row m of the larger image is the sum of rows line[start[m]...] times line_weight.
  const int64_t *start, *line;
  const void* line_weight;
  int64_t block;
  // Up, as the input of a RIM's network; eta [items, channels, scale height, scale width].
  const void *eta /*?*/, *precision /*?*/;
  double factor;
  bool logistic;
  int64_t channels;
};

// Fourier transforms of `size` numbers: the radix of every stage, twiddle factors (interleaved)
// and, for primes above 5, their cosines and sines. A size with a prime above kMaxPrime is a
// convolution with a chirp (interleaved), padded to `length`, and the stages are of that one.
constexpr int64_t kMaxPrime = 127, kMaxStages = 64;
struct FftPlan {
  int64_t size, length, stages;
  int64_t radix[kMaxStages];
  const void* twiddles;
  const void* table[kMaxStages];
  const void *chirp /*?*/, *spectrum /*?*/;  // [size], and of its conjugate [length], over length
};

// MRI. Images are complex, interleaved: x and out [items, height, width], sensitivities of all
// items or [items, coils, height, width]. The result is (norm sum - minus) factor scale[item].
struct MriArgs {
  const void *x, *sensitivities /*?*/, *mask, *minus /*?*/, *scale /*?*/, *grad /*?*/;
  void *out /*? of a gradient*/, *grad_maps /*?*/;
  int64_t items, coils, height, width;
  bool shared, columns, shared_mask;
  double norm, factor;
  FftPlan along_row, along_column;
  void *kspace, *sums;  // of one coil, and of one image
};

// 3x3 convolutions by F(4x4, 3x3): a tile of 4x4 pixels comes from 36 planes; a block of columns is
// 64 output channels, or the four gates of 16 hidden ones. (python/amstel/ops/_winograd.py knows
// tile and planes too.)
constexpr int64_t kWinogradTile = 4, kWinogradPlanes = 36;
constexpr int64_t kWinogradColumns = 64, kWinogradGates = 16;
constexpr int64_t kWinogradLanes = 16;  // of the widest vector

// Of contiguous [items, height, width, channels].
struct WinogradShape {
  int64_t items, height, width;
  AMSTEL_EVERYWHERE int64_t across() const { return divide_up(width, kWinogradTile); }
  AMSTEL_EVERYWHERE int64_t down() const { return divide_up(height, kWinogradTile); }
  AMSTEL_EVERYWHERE int64_t tiles() const { return items * down() * across(); }
};

struct WinogradWeightArgs {
  const float* weight;  // [outputs, inputs, 3, 3] by the strides given, taps contiguous
  float* packed;
  int64_t outputs, inputs, output_stride, input_stride;
  bool flip;    // the taps, as the transposed convolution has them
  bool gates;   // a block of columns is the four gates of 16 hidden channels, else 64 channels
  bool stream;  // past the caches
};

struct WinogradArgs {
  WinogradShape shape;
  struct {
    const void* image;
    int64_t channels;  // 0: none
  } sources[2];
  const float *packed, *bias /*?*/;
  int64_t outputs;
  void* out;          // [items, height, width, outputs], or
  ConvLstmArgs lstm;  // where its h is not null; here `gates` may be null
};

struct WinogradPlanesArgs {
  WinogradShape shape;
  const void* image;
  int64_t channels;
  float *planes, *scratch;              // 36 of rows of `width` numbers; 36 * (channels + 16)
  int64_t plane, width, offset, first;  // `first` tile is row 0; channels begin at `offset`
};

// ROI pooling. A group is boxes of one image and a window, a rectangle of cells that contains all
// that they read. Kernels take a tile of channels, from `channel` on, bring its window into
// `scratch` as [rows, cols, tile] and read all boxes from there.
//
// Overlapping boxes have many bins with the same columns. Those are a strip, whose rows are reduced
// to their maxima once, [rows, tile] behind the window, wherever that is less work.
struct RoiStrip {
  int64_t row, row_end, col, col_end;
  int64_t first;  // row of the scratch
};

struct RoiGroup {
  int64_t image, row, col, rows, cols;  // row, col: of the first cell
  const int64_t* boxes;
  int64_t count;
  const RoiStrip* strips /*?*/;
  const int32_t* strip_of;  // a row of pooled_width numbers a box; -1 of an empty bin
  int64_t num_strips, strip_rows;
};

using RoiStrides = roi::Strides;

struct RoiArgs {
  const void* input /*?*/;
  RoiStrides in, grad_strides;  // of input and grad_input
  int64_t channels, height, width, pooled_height, pooled_width;
  const int32_t* table;  // a box a row, common/roi.h
  // roi_pool: the results; roi_pool_grad: the gradient and argmax given.
  void* pooled;
  int32_t* argmax /*?*/;
  RoiStrides pooled_strides, argmax_strides;
  bool* bad_argmax;        // set by any thread, atomically
  void* grad_input /*?*/;  // all of the group's image is written
  bool stream;             // past the caches
  // roi_match: query [C, bins], sums [tiles, boxes, 2] of which `tile_sums` a tile;
  // roi_match_grad: coefficients [box, 2] and grad_query [C, bins], of this group alone.
  const void *query, *coefficients;
  void *sums, *grad_query /*?*/;
  int64_t tile_sums;
};

// A sample of ROI align along one axis: two cells, and their weights, found in the arithmetic of
// the boxes, in both types of sums.
template <class S>
struct RoiWeights {
  S low, high;
};
struct RoiSample {
  int32_t low, high;
  RoiWeights<float> single;
  RoiWeights<double> wide;
};

struct RoiAlignArgs {
  RoiArgs roi;
  // roi_align: the samples inside of the map; a row of `starts_width` numbers a box: its image, the
  // first sample of each row of bins and the end of the last, and the same of the columns; and what
  // its sums are divided by. ps_roi_pool has the table in `roi`.
  const RoiSample* samples;
  const int64_t* starts;
  int64_t starts_width;
  const int64_t* counts;
};

struct Kernels {
  const char* isa;
  // All kernels work on the rows [begin, end); the second index is 1 for int64 indices.
  void (*spmm[kNumDtypes][2])(const SpmmArgs&, int64_t begin, int64_t end);
  void (*spmm_grad[kNumDtypes][2])(const SpmmGradArgs&, int64_t begin, int64_t end);
  void (*epilogue_grad[kNumDtypes])(const EpilogueArgs&, int64_t begin, int64_t end);
  // The second index is 1 where the cell states are of the dtype of the gates.
  void (*conv_lstm_gates[kNumDtypes][2])(const ConvLstmArgs&, int64_t begin, int64_t end);
  void (*conv_lstm_gates_grad[kNumDtypes][2])(const ConvLstmGradArgs&, int64_t begin, int64_t end);
  void (*conv_gru_gates[kNumDtypes])(const ConvGruArgs&, int64_t begin, int64_t end);
  void (*conv_gru_gates_grad[kNumDtypes])(const ConvGruGradArgs&, int64_t begin, int64_t end);
  // Tiles of kRimTile pixels.
  void (*rim_input[kNumDtypes])(const RimInputArgs&, int64_t begin, int64_t end);
  void (*rim_input_grad[kNumDtypes])(const RimInputArgs&, int64_t begin, int64_t end);
  // Rows of the smaller images; blocks of rows of the larger.
  void (*bicubic_down[2])(const BicubicArgs&, void* scratch, int64_t begin, int64_t end);
  void (*bicubic_up[kNumDtypes])(const BicubicArgs&, void* scratch, int64_t begin, int64_t end);
  // Double and float: strips of all images; of one image, for one coil; blocks of columns of it.
  int64_t vector_bytes;
  void (*mri_columns[2])(const MriArgs&, void* scratch, int64_t begin, int64_t end);
  void (*mri_strips[2])(const MriArgs&, void* scratch, int64_t item, int64_t coil, int64_t begin,
                        int64_t end);
  void (*mri_blocks[2])(const MriArgs&, void* scratch, int64_t item, int64_t begin, int64_t end);
  void (*mri_columns_grad[2])(const MriArgs&, void* scratch, int64_t begin, int64_t end);
  void (*mri_strips_grad[2])(const MriArgs&, void* scratch, int64_t item, int64_t coil,
                             int64_t begin, int64_t end);
  // Coil images; rows of images; rows of coil images.
  void (*coil_expand[2])(const MriArgs&, int64_t begin, int64_t end);
  void (*coil_reduce[2])(const MriArgs&, int64_t begin, int64_t end);
  void (*kspace_residual[2])(const MriArgs&, int64_t begin, int64_t end);
  // Blocks of columns [begin, end).
  void (*winograd_weight)(const WinogradWeightArgs&, int64_t begin, int64_t end);
  // Tiles [begin, end) and blocks of columns [first, last); none for double.
  void (*winograd[kNumDtypes])(const WinogradArgs&, float* workspace, int64_t begin, int64_t end,
                               int64_t first, int64_t last);
  // Tiles [begin, end) of an input, or of the gradient of an output.
  void (*winograd_planes[kNumDtypes][2])(const WinogradPlanesArgs&, int64_t begin, int64_t end);
  // Tiles of two vectors of channels, of one, and of one channel where windows would not fit in
  // memory.
  struct Roi {
    int64_t tile;
    void (*pool)(const RoiArgs&, const RoiGroup&, int64_t channel, void* scratch);
    void (*pool_grad)(const RoiArgs&, const RoiGroup&, int64_t channel, void* scratch);
    void (*match)(const RoiArgs&, const RoiGroup&, int64_t channel, void* scratch);
    void (*match_grad)(const RoiArgs&, const RoiGroup&, int64_t channel, void* scratch);
  } roi[kNumDtypes][3];
  // The same for what adds up; channels of ps_roi_pool are those of its output.
  struct RoiAlign {
    int64_t tile;
    void (*align)(const RoiAlignArgs&, const RoiGroup&, int64_t channel, void* scratch);
    void (*align_grad)(const RoiAlignArgs&, const RoiGroup&, int64_t channel, void* scratch);
    void (*ps_pool)(const RoiAlignArgs&, const RoiGroup&, int64_t channel, void* scratch);
    void (*ps_pool_grad)(const RoiAlignArgs&, const RoiGroup&, int64_t channel, void* scratch);
  } roi_align[kNumDtypes][3];
};

// The choice of this process. (A name that a program which links the library may use.)
__attribute__((visibility("default"))) const Kernels& kernels();

}  // namespace amstel::cpu
