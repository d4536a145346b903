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
      "csr_from_coo(Tensor row, Tensor col, SymInt num_rows, SymInt num_cols, Tensor? weight) -> "
      "(Tensor "
      "crow, Tensor col, Tensor edge)");
  m.def(
      "csr_transpose(Tensor crow, Tensor col, Tensor? edge, SymInt num_cols) -> (Tensor crow, "
      "Tensor "
      "col, Tensor edge)");
  // Checks crow, col and weight of a CSR matrix from outside; raises at the first bad position.
  m.def("csr_check(Tensor crow, Tensor col, Tensor? weight, SymInt num_cols) -> ()");

  // Samples of a graph, on the CPU. Of the slots of every target `fanout` (all of them: -1), with
  // or without replacement, uniformly or in proportion to chance [edges]: the matrix [targets,
  // nodes] of the sample, the slots it came from, by what the edges must be scaled so that sums are
  // unbiased (empty: by 1), and the nodes, the targets first. Draws follow from key and target.
  m.def(
      "sample_neighbors(Tensor crow, Tensor col, Tensor? chance, Tensor targets, int fanout, bool "
      "replace, int key, bool parallel) -> (Tensor crow, Tensor col, Tensor slot, Tensor scale, "
      "Tensor nodes)");
  // The rows and columns `nodes` of a square matrix, in that order, and the slots they came from.
  m.def(
      "induced_subgraph(Tensor crow, Tensor col, Tensor nodes, bool parallel) -> (Tensor crow, "
      "Tensor col, Tensor slot)");
  // x[index] of bytes [rows, width], for the features of a batch.
  m.def("gather_rows(Tensor x, Tensor index, bool parallel) -> Tensor");
  // Walks from target to source, [starts, length + 1]; a walk stays where no edge leads on.
  m.def("random_walk(Tensor crow, Tensor col, Tensor starts, int length, int key) -> Tensor");

  // out[i] = sum_k a[edge[k]] * b[edge[k]] over the slots k of row i.
  m.def("edge_sum(Tensor crow, Tensor? edge, Tensor a, Tensor? b) -> Tensor");
  // out[edge[k]] = value[edge[k]] + row_term[i] + col_term[col[k]].
  m.def(
      "edge_add(Tensor crow, Tensor col, Tensor? edge, Tensor value, Tensor? row_term, Tensor? "
      "col_term, ScalarType dtype) -> Tensor");

  // On the CPU a weight that is NaN raises with check_weight; on CUDA it leaves a 0 in `found`,
  // int64 [1], if that is given.
  // y[i] = act(row_scale[i] * (sum_k weight[edge[k]] col_scale[col[k]] x[col[k]]
  //                            + self_loops * col_scale[i] x[i]) + bias)
  m.def(
      "spmm(Tensor crow, Tensor col, Tensor? edge, Tensor? weight, Tensor x, Tensor? row_scale, "
      "Tensor? col_scale, float self_loops, Tensor? bias, bool relu, bool check_weight, "
      "Tensor? found=None) -> Tensor");
  // The same for many x: all else is kept under a number, for as long as the tensor lives that
  // holds it. The matrix has `cols` columns, the result `rows` rows.
  m.def(
      "spmm_keep(Tensor crow, Tensor col, Tensor? edge, Tensor? weight, Tensor? row_scale, Tensor? "
      "col_scale, int cols, float self_loops, bool relu) -> Tensor");
  m.def("spmm_kept(Tensor x, int product, int rows) -> Tensor");
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

  // ConvLSTM, on rows: gates [R, 4 I] in the order i, f, g, o, states [R, I], peephole [3, I] in
  // the order i, f, o. A row is a pixel (I = C) or an image (I = C H W); gates and states may also
  // be the maps [N, 4 C, H, W] and [N, C, H, W] with that memory. Peephole and sums are
  // float64 for float64 and float32 for the rest, states of that type or that of gates. With a =
  // gates + more: i = s(a_i + p_i c), f = s(a_f + p_f c), c_out = f c + i tanh(a_g), o = s(a_o +
  // p_o c_out), h = o tanh(c_out); `activated` receives i, f, tanh(a_g), o. c_out may be c,
  // activated may be gates. On CUDA, `more` may be one row for all and rows of h may lie apart.
  m.def(
      "conv_lstm_gates(Tensor gates, Tensor? more, Tensor c, Tensor? peephole, Tensor(a!) h, "
      "Tensor(b!) c_out, Tensor(c!)? activated) -> ()");
  // Gradients from those of h (grad_h + grad_h_more) and c_out (grad_c): grad_gates of the
  // pre-activations, which may be written over `activated`, grad_c_out of c, which may be grad_c,
  // and sums [blocks, (4 if bias) + (3 if peephole) rows of I] over blocks of rows: of grad_gates,
  // and of i, f, o of it times c, c, c_out.
  m.def(
      "conv_lstm_gates_grad(Tensor activated, Tensor c, Tensor c_out, Tensor? peephole, Tensor? "
      "grad_h, Tensor? grad_h_more, Tensor? grad_c, Tensor(a!) grad_c_out, Tensor(b!) grad_gates, "
      "bool bias) -> Tensor sums");

  // ConvLSTM over a sequence x [T, N, C_in, H, W], put together in python/amstel/ops/_conv_lstm.py
  // (without Python: common/conv_lstm_loop.cpp) from its steps and convolutions of all x at once;
  // h, c [N, C, H, W], mask [T, N]: where false a step keeps its state. Returns the histories of h
  // and c and the activated gates, channels last and with the initial state first, as long as
  // `keep` asks: "last" [1 step], "output" [h], "state" [h and c], "gates" [all].
  m.def(
      "conv_lstm(Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor? bias, Tensor? h, Tensor? c, "
      "Tensor? mask, Tensor? peephole, int dilation, str padding, str algorithm, str keep) -> "
      "(Tensor "
      "h, Tensor c, Tensor gates)");
  // Its steps, in place: h [frames, N, H, W, C], of which a step reads one and writes the next,
  // from `first` on and around; c [1 or steps + 1 frames]; x [steps, ...] joins h, in the weight or
  // beside it in h's channels, or `gates` [steps, N, H, W, 4C] are what it adds. The dimensions of
  // the weight say how it is multiplied: 1, winograd_weight of the 3x3 kernel; 2, [4C, C k k], as a
  // product; 4, as a convolution.
  m.def(
      "conv_lstm_steps(Tensor(a!) h, Tensor(b!) c, Tensor? x, Tensor? gates, Tensor weight, "
      "Tensor? "
      "bias, Tensor? mask, Tensor? peephole, Tensor(c!)? activated, int[] kernel, int dilation, "
      "int "
      "first) -> ()");
  // Back through them: the gradients of h and c before the first one (that of h empty unless
  // `need_h`), from those after the last one and of all outputs; of all gates; and the sums of
  // conv_lstm_gates_grad, last step first. Winograd's weight is that of the transposed convolution.
  m.def(
      "conv_lstm_steps_grad(Tensor activated, Tensor c, Tensor? grad_output, Tensor? grad_h, "
      "Tensor? "
      "grad_c, Tensor weight, Tensor? mask, Tensor? peephole, Tensor(a!) grad_gates, int[] kernel, "
      "int dilation, bool bias, bool need_h) -> (Tensor grad_h, Tensor grad_c, Tensor sums)");
  // Its gates alone, laid out as they are given: gates [N, 4C, H, W], c [N, C, H, W] -> h, c_out.
  m.def("conv_lstm_cell(Tensor gates, Tensor c, Tensor? peephole) -> (Tensor h, Tensor c_out)");
  // Gradients of x, weight_ih, weight_hh, bias, peephole, h and c, each as far as `needs` says
  // (else empty), from those of all outputs, of the last h and of the last c; without gates they
  // are computed again.
  m.def(
      "conv_lstm_grad(Tensor? grad_output, Tensor? grad_h, Tensor? grad_c, Tensor x, Tensor "
      "weight_ih, "
      "Tensor weight_hh, Tensor? bias, Tensor? mask, Tensor? peephole, Tensor h, Tensor c, Tensor? "
      "gates, int dilation, str padding, str algorithm, bool[] needs) -> Tensor[]");

  // ConvGRU, on rows: gates [R, 3 I] in the order r, z, n, state [R, I]; a row is a pixel (I = C)
  // or an image (I = C H W), or all are maps as above. r = s(x_r + h_r), z = s(x_z + h_z), n =
  // tanh(x_n + r h_n), h_out = (1
  // - z) n + z h; activated [R, 4 I] is r, z, n, h_n, of no rows without `keep`.
  m.def(
      "conv_gru_gates(Tensor gates_x, Tensor gates_h, Tensor h, bool keep) -> (Tensor h_out, "
      "Tensor "
      "activated)");
  m.def(
      "conv_gru_gates_grad(Tensor grad, Tensor activated, Tensor h) -> (Tensor grad_gates_x, "
      "Tensor "
      "grad_gates_h, Tensor grad_h)");
  // The same between 1x1 convolutions, on the pixels x [R, C_in], h [R, C] or zeros: gates_x is
  // x weight_ih^T + bias_ih, gates_h is h weight_hh^T + bias_hh. On the CPU alone. Without
  // activated they are computed again; what is not needed is empty.
  m.def(
      "conv_gru_pixels(Tensor x, Tensor? h, Tensor weight_ih, Tensor weight_hh, Tensor bias_ih, "
      "Tensor bias_hh, bool keep) -> (Tensor h_out, Tensor activated)");
  m.def(
      "conv_gru_pixels_grad(Tensor grad, Tensor? activated, Tensor x, Tensor? h, Tensor weight_ih, "
      "Tensor weight_hh, Tensor bias_ih, Tensor bias_hh, bool need_x, bool need_h, bool "
      "need_weights) -> (Tensor grad_x, Tensor grad_h, Tensor grad_weight_ih, Tensor "
      "grad_weight_hh, Tensor grad_bias_ih, Tensor grad_bias_hh)");

  // The input of a recurrent inference machine's network, [eta, factor precision[n] Psi'(eta) g] as
  // channels last [N, 2 C, H, W] of `dtype`: g is `other`, or mask (Psi(eta) - other) of a
  // `residual`. Psi is the identity or, `logistic`, the sigmoid. mask may be expanded.
  m.def(
      "rim_input(Tensor eta, Tensor other, Tensor? mask, Tensor? precision, float factor, bool "
      "residual, bool logistic, ScalarType dtype) -> Tensor");
  m.def(
      "rim_input_grad(Tensor grad, Tensor eta, Tensor other, Tensor? mask, Tensor? precision, "
      "float "
      "factor, bool residual, bool logistic) -> (Tensor grad_eta, Tensor grad_other)");
  // Antialiased bicubic resampling (a = -0.5, mirrored border) of contiguous [N, C, H, W] to a
  // `scale`-th of both sides, less `minus`; and its adjoint, to `scale` times both sides.
  m.def("bicubic_down(Tensor x, Tensor? minus, int scale) -> Tensor");
  m.def("bicubic_up(Tensor y, int scale) -> Tensor");
  // rim_input with g = bicubic_up(residual, scale).
  m.def(
      "rim_bicubic_input(Tensor eta, Tensor residual, Tensor? precision, float factor, int scale, "
      "bool logistic, ScalarType dtype) -> Tensor");

  // Multi-coil MRI, complex as real [..., 2]: x [N, H, W, 2], sensitivities [N or 1, coils, H, W,
  // 2] (one coil of ones without them), mask [W] (columns), [1, H, W] or [N, H, W], scale [N].
  // Fourier transforms are orthonormal, their origin at index 0. (sum_c conj(S_c) F^-1 mask F (S_c
  // x) - minus) factor scale. On the CPU sides have no prime factor above 127; on CUDA the mask is
  // of columns and rows are short, of small prime factors (csrc/cuda/mri_columns_op.cu).
  m.def(
      "mri_normal(Tensor x, Tensor mask, Tensor? sensitivities, Tensor? minus, Tensor? scale, "
      "float "
      "factor) -> Tensor");
  // Its gradients in x (empty unless `need_x`) and in the sensitivities, from that of its result.
  m.def(
      "mri_normal_grad(Tensor grad, Tensor x, Tensor mask, Tensor sensitivities, Tensor? scale, "
      "float factor, bool need_x) -> (Tensor grad_x, Tensor grad_sensitivities)");
  // S_c x
  m.def("coil_expand(Tensor x, Tensor sensitivities) -> Tensor");
  // (sum_c conj(S_c) images_c - minus) factor scale
  m.def(
      "coil_reduce(Tensor images, Tensor sensitivities, Tensor? minus, Tensor? scale, float "
      "factor) "
      "-> Tensor");
  // k = factor mask (k - minus), 0 where the mask is.
  m.def("kspace_residual(Tensor(a!) k, Tensor mask, Tensor? minus, float factor=1.0) -> ()");

  // 3x3 convolutions by Winograd's F(4x4, 3x3), on the CPU, in float32 arithmetic; images are
  // contiguous [N, H, W, channels] in float32, bfloat16 or float16.
  // The weight [O, I, 3, 3], float32, transformed and packed; `transposed`: of the transposed
  // convolution, from O to I channels; `gates`: for winograd_lstm.
  m.def("winograd_weight(Tensor weight, bool transposed, bool gates) -> Tensor");
  m.def("winograd_conv(Tensor x, Tensor packed, Tensor? bias, Tensor(a!) out) -> ()");
  // A step of conv_lstm: the gates are packed * [h, x] + gates + bias, rows are pixels.
  m.def(
      "winograd_lstm(Tensor h, Tensor? x, Tensor packed, Tensor? gates, Tensor? bias, Tensor c, "
      "Tensor? peephole, Tensor(a!) h_out, Tensor(b!) c_out, Tensor(c!)? activated) -> ()");
  // The transformed tiles [first, first + out.size(1)) of an image, or of the gradient of an
  // output, into the columns from `offset` on of out [36, tiles, width], float32: products of the
  // two, summed over the tiles, are the gradient of the transformed weights.
  m.def(
      "winograd_planes(Tensor image, bool gradient, int first, int offset, Tensor(a!) out) -> ()");

  // ROI max pooling of input [N, C, H, W] by rois [K, 5] = image, x1, y1, x2, y2. The output [K, C,
  // ph, pw] is laid out as the input (channels last where its channels are neighbors), and so is
  // argmax, int32, the first position h W + w of the maximum or -1; empty without need_argmax.
  // A roi that is not valid raises with `check`, else it is pooled to 0. On CUDA a check waits for
  // the device, unless it has `found`, int64 [1] there: that receives the smallest number of such a
  // roi, compared as unsigned numbers, and is not looked at.
  m.def(
      "roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int "
      "pooled_width, bool need_argmax, bool check=True, Tensor? found=None) -> (Tensor output, "
      "Tensor argmax)");
  // Its gradient, [images, C, height, width]: grad is added where argmax points, in the order of
  // the rois.
  m.def(
      "roi_pool_grad(Tensor grad, Tensor argmax, Tensor rois, float spatial_scale, SymInt "
      "images, SymInt height, SymInt width, bool channels_last) -> Tensor");
  // The gradient of that: input where argmax points, 0 where it is -1.
  m.def("roi_pool_gather(Tensor input, Tensor argmax, Tensor rois) -> Tensor");
  // With p_k the pooled map of roi k and query [C ph pw]: sums[k] = (<p_k, p_k>, <p_k, query>).
  m.def(
      "roi_match(Tensor input, Tensor rois, Tensor query, float spatial_scale, int pooled_height, "
      "int pooled_width, bool check=True, Tensor? found=None) -> Tensor");
  // For coefficients (a_k, b_k): the gradient of the input where that of p_k is a_k query + b_k
  // p_k, and sum_k a_k p_k, the gradient of the query; empty where not needed.
  m.def(
      "roi_match_grad(Tensor input, Tensor rois, Tensor query, Tensor coefficients, float "
      "spatial_scale, int pooled_height, int pooled_width, bool need_input, bool need_query) -> "
      "(Tensor grad_input, Tensor grad_query)");

  // ROI align: the mean over the samples of every bin, sampling x sampling of them or, for 0, as
  // many as the bin is cells high and wide; `aligned`: coordinates less half a cell. Its gradient
  // is its adjoint, added up in the order of the rois.
  m.def(
      "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int "
      "pooled_width, int sampling, bool aligned) -> Tensor");
  m.def(
      "roi_align_grad(Tensor grad, Tensor rois, float spatial_scale, int sampling, bool aligned, "
      "SymInt images, SymInt height, SymInt width, bool channels_last) -> Tensor");
  // Position-sensitive ROI pooling of input [N, C ph pw, H, W]: the mean of bin (i, j) of channel
  // (c, i, j); and its adjoint.
  m.def(
      "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int "
      "pooled_width) -> Tensor");
  m.def(
      "ps_roi_pool_grad(Tensor grad, Tensor rois, float spatial_scale, SymInt images, SymInt "
      "height, SymInt width, bool channels_last) -> Tensor");

  m.def("cpu_isa() -> str");
  m.def("build_info() -> str");
}
