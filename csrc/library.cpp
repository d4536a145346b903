// Every operator of amstel, one schema a line. Kernels register in csrc/cpu and csrc/cuda, fake
// kernels and gradients in python/amstel/ops.
//
// The graph operators trust the entries of crow, col and edge: they are checked once, in O(E), when
// a Graph is made, and every public function takes a Graph. Everything else is checked at every
// call.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(amstel, m) {
  // Graph structure, from edges row <- col; raises at the first index out of range and the first
  // NaN weight. `edge` maps a slot of the CSR to the position of its edge in the list that the
  // caller gave; without it slot k is edge k.
  m.def(
      "csr_from_coo(Tensor row, Tensor col, int num_rows, int num_cols, Tensor? weight) -> (Tensor "
      "crow, Tensor col, Tensor edge)");
  m.def(
      "csr_transpose(Tensor crow, Tensor col, Tensor? edge, int num_cols) -> (Tensor crow, Tensor "
      "col, Tensor edge)");
  // Checks crow, col and weight of a CSR matrix from outside; raises at the first bad position.
  m.def("csr_check(Tensor crow, Tensor col, Tensor? weight, int num_cols) -> ()");

  // out[i] = sum_k a[edge[k]] * b[edge[k]] over the slots k of row i.
  m.def("edge_sum(Tensor crow, Tensor? edge, Tensor a, Tensor? b) -> Tensor");
  // out[edge[k]] = value[edge[k]] + row_term[i] + col_term[col[k]].
  m.def(
      "edge_add(Tensor crow, Tensor col, Tensor? edge, Tensor value, Tensor? row_term, Tensor? "
      "col_term, ScalarType dtype) -> Tensor");

  // y[i] = act(row_scale[i] * (sum_k weight[edge[k]] col_scale[col[k]] x[col[k]]
  //                            + self_loops * col_scale[i] x[i]) + bias)
  m.def(
      "spmm(Tensor crow, Tensor col, Tensor? edge, Tensor? weight, Tensor x, Tensor? row_scale, "
      "Tensor? col_scale, float self_loops, Tensor? bias, bool relu, bool check_weight) -> Tensor");
  // One pass over the transposed matrix for both gradients of `spmm` without bias and activation:
  // grad_x, grad_weight[edge] = row_scale[i] col_scale[j] <grad[i], x[j]>, and per node
  // dot = <x, grad_x> and loop = self_loops row_scale col_scale <grad, x>.
  m.def(
      "spmm_grad(Tensor crow_t, Tensor col_t, Tensor edge_t, Tensor? weight, Tensor grad, Tensor "
      "x, Tensor? row_scale, Tensor? col_scale, float self_loops, bool need_x) -> (Tensor grad_x, "
      "Tensor grad_weight, Tensor dot, Tensor loop)");
  // Gradient through bias and ReLU: grad where output > 0 (all of it without `output`), and its
  // sum over everything but the last dimension.
  m.def("epilogue_grad(Tensor grad, Tensor? output) -> (Tensor grad_in, Tensor grad_bias)");

  m.def("cpu_isa() -> str");
  m.def("build_info() -> str");
}
