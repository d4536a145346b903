// The table of CPU kernels, chosen once at load time for the instruction set of this machine.
#pragma once
#include <cstdint>

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
  bool relu;
  bool prefetch;  // x is larger than a cache that could hold it
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

struct Kernels {
  const char* isa;
  // All kernels work on the rows [begin, end); the second index is 1 for int64 indices.
  void (*spmm[kNumDtypes][2])(const SpmmArgs&, int64_t begin, int64_t end);
  void (*spmm_grad[kNumDtypes][2])(const SpmmGradArgs&, int64_t begin, int64_t end);
  void (*epilogue_grad[kNumDtypes])(const EpilogueArgs&, int64_t begin, int64_t end);
};

const Kernels& kernels();

}  // namespace amstel::cpu
