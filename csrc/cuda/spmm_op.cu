// The graph operators on CUDA: check, allocate, launch.  The kernels and how their threads share
// the work are in the files of kernels/ included below, the meaning of the arguments in
// library.cpp.
//
// Nothing in here looks at device memory or waits, so that all of it can be captured in a CUDA
// graph. For the same reason `check_weight` is not heeded: the kernel notes a NaN in `found`, or
// the Python function looks for it, outside a capture.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "common/rows.h"
#include "common/spmm_check.h"
#include "common/spmm_kept.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/column_sum.cuh"
#include "cuda/kernels/edge_sum.cuh"
#include "cuda/kernels/spmm.cuh"
#include "cuda/kernels/spmm_grad.cuh"

namespace amstel::cuda {
namespace {

Csr csr(const Tensor& crow, const Tensor* col, const OptionalTensor& edge) {
  return {crow.const_data_ptr(), col ? col->const_data_ptr() : nullptr, pointer(edge),
          crow.size(0) - 1, crow.scalar_type() == ScalarType::Long};
}

// f(Int<N>{}): elements an access.  Two short elements share a 4-byte word at least where F is
// even.
template <class T, class F>
void with_width(const Alignment& alignment, const F& f) {
  if (alignment.allows(16)) return f(Int<kVectorWidth<T>>{});
  if constexpr (sizeof(T) == 2) {
    if (alignment.allows(4)) return f(Int<2>{});
  }
  f(Int<1>{});
}

// Rows from which on there are enough of them to fill a GPU with tiles.
#ifdef AMSTEL_EMULATED
constexpr int64_t kManyRows = 1 << 6;  // so that the tests meet both
#else
constexpr int64_t kManyRows = 1 << 17;
#endif

// A long row's edges are summed in chunks of at least so many, at most kChunks of them; fewer edges
// than kManyEdges are not worth a launch.
#ifdef AMSTEL_EMULATED
constexpr int64_t kManyEdges = 1 << 9, kChunk = 300, kChunks = 1 << 4;
#else
constexpr int64_t kManyEdges = 1 << 17, kChunk = 1 << 10, kChunks = 1 << 12;
#endif

// f(Int<Tile>{}, Int<Row>{}): the fewest lanes that hold a row at once, up to a warp.  Narrow ones
// share a warp a row, unless the rows are many and short. Measured on an H200:
// docs/design/cuda.md.
template <class F>
void with_tile(int64_t lanes, int64_t rows, int64_t edges, const F& f) {
  const bool alone = rows > kManyRows && edges < 32 * rows;
  const auto with_row = [&](auto tile) {
    if (alone) return f(tile, tile);
    f(tile, Int<32>{});
  };
  if (lanes <= 4) return with_row(Int<4>{});
  if (lanes <= 8) return with_row(Int<8>{});
  if (lanes <= 16) return f(Int<16>{}, Int<16>{});
  f(Int<32>{}, Int<32>{});
}

Tensor empty_rows(const Tensor& like, int64_t rows, int64_t features) {
  return like.dim() == 3 ? empty(like, {like.size(0), rows, features})
                         : empty(like, {rows, features});
}

void check_features(const char* op, int64_t features) {
  AMSTEL_CHECK(features < kGridX, op, ": fewer than ", kGridX, " features expected, got ",
               features);
}

}  // namespace

Tensor spmm(Tensor crow, Tensor col, OptionalTensor edge, OptionalTensor weight, Tensor x,
            OptionalTensor row_scale, OptionalTensor col_scale, double self_loops,
            OptionalTensor bias, bool relu, bool /*check_weight*/, OptionalTensor found) {
  const char* op = "spmm";
  const SpmmShape s =
      check_spmm(op, crow, col, edge, weight, "x", x, row_scale, col_scale, self_loops);
  if (bias) check_vector(op, crow, "bias", *bias, s.features, s.dtype);
  if (found) check_vector(op, crow, "found", *found, 1, ScalarType::Long);
  check_features(op, s.features);
  const CurrentStream stream(x);
  const Rows in(x);
  Tensor y = empty_rows(x, s.rows, s.features);
  if (y.numel() == 0) return y;
  const int64_t size = static_cast<int64_t>(x.element_size());
  Alignment alignment;
  alignment.pointer(in.item(0)).pointer(pointer(bias)).pointer(y.const_data_ptr());
  alignment.bytes(s.features * size).bytes(in.stride * size).bytes(in.batch_stride * size);
  const int64_t edges = col.size(0), chunk = std::max(kChunk, divide_up(edges, kChunks));
  const int64_t chunks = edges < kManyEdges ? 0 : divide_up(edges, chunk);
  const Tensor partial =
      empty(crow, {chunks ? s.batch : 0, chunks, 2, s.features}, sum_dtype(s.dtype));
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    with_width<T>(alignment, [&](auto width) {
      with_tile(divide_up(s.features, width), s.rows, edges, [&](auto tile, auto row) {
        constexpr int N = decltype(width)::value, Tile = decltype(tile)::value;
        constexpr int Row = decltype(row)::value;
        SpmmArgs<T> a{.csr = csr(crow, &col, edge),
                      .weight = data<T>(weight),
                      .row_scale = data<S>(row_scale),
                      .col_scale = data<S>(col_scale),
                      .x_stride = in.stride,
                      .x_batch_stride = in.batch_stride,
                      .y_stride = s.features,
                      .y_batch_stride = s.rows * s.features,
                      .features = 0,
                      .self_loops = self_loops,
                      .relu = relu,
                      .nan = found ? mutable_data<unsigned long long>(*found) : nullptr,
                      .partial = nullptr,
                      .chunk = chunk,
                      .chunks = chunks,
                      .partial_stride = s.features};
        const unsigned grid_x = blocks(op, divide_up(s.rows, kThreads / Row));
        // One launch, unless a batch of tiny graphs or enormous rows exceed the grid.
        for (int64_t item = 0; item < s.batch; item += kGridYZ) {
          for (int64_t part = 0; part < s.features; part += kGridYZ * (Tile * N)) {
            a.features = s.features - part;
            a.x = static_cast<const T*>(in.item(item)) + part;
            a.y = mutable_data<T>(y) + item * a.y_batch_stride + part;
            a.bias = bias ? data<T>(*bias) + part : nullptr;
            const int64_t parts = std::min(kGridYZ, divide_up(a.features, Tile * N));
            const dim3 grid(grid_x, static_cast<unsigned>(parts), grid_yz(s.batch - item));
            if (chunks) {
              a.partial = mutable_data<S>(partial) + item * chunks * 2 * s.features + part;
              AMSTEL_LAUNCH((spmm_chunk_kernel<T, N, Tile>),
                            dim3(blocks(op, chunks), grid.y, grid.z), kThreads, 0, stream, a);
              check_launch(op);
            }
            AMSTEL_LAUNCH((spmm_kernel<T, N, Tile, Row>), grid, kThreads, 0, stream, a);
            check_launch(op);
          }
        }
      });
    });
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> spmm_grad(Tensor crow_t, Tensor col_t, Tensor edge_t,
                                                     OptionalTensor weight, Tensor grad, Tensor x,
                                                     OptionalTensor row_scale,
                                                     OptionalTensor col_scale, double self_loops,
                                                     bool need_x) {
  const char* op = "spmm_grad";
  // The transposed matrix: its rows are the nodes of x, its columns those of grad.
  const SpmmShape s =
      check_spmm(op, crow_t, col_t, edge_t, weight, "grad", grad, col_scale, row_scale, self_loops);
  check_spmm_grad(op, s, grad, x);
  check_features(op, s.features);
  const CurrentStream stream(grad);
  const Rows g(grad), in(x);
  Tensor grad_x = need_x ? empty_rows(grad, s.rows, s.features) : empty(grad, {0});
  Tensor grad_weight = empty(grad, {col_t.size(0)}, s.sum);
  Tensor dot = empty(grad, {s.rows}, s.sum);
  Tensor loop = empty(grad, {self_loops != 0 ? s.rows : 0}, s.sum);
  if (s.batch == 0 || s.features == 0) {
    torch::stable::zero_(grad_weight);
    torch::stable::zero_(dot);
    torch::stable::zero_(loop);
    return {grad_x, grad_weight, dot, loop};
  }
  if (s.rows == 0) return {grad_x, grad_weight, dot, loop};
  const int64_t size = static_cast<int64_t>(x.element_size());
  Alignment alignment;
  alignment.pointer(g.item(0)).pointer(in.item(0)).pointer(grad_x.const_data_ptr());
  alignment.bytes(s.features * size).bytes(g.stride * size).bytes(g.batch_stride * size);
  alignment.bytes(in.stride * size).bytes(in.batch_stride * size);
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    with_width<T>(alignment, [&](auto width) {
      with_tile(divide_up(s.features, width), s.rows, col_t.size(0), [&](auto tile, auto row) {
        constexpr int N = decltype(width)::value, Tile = decltype(tile)::value;
        constexpr int Row = decltype(row)::value;
        const SpmmGradArgs<T> a{.csr = csr(crow_t, &col_t, edge_t),
                                .weight = data<T>(weight),
                                .row_scale = data<S>(row_scale),
                                .col_scale = data<S>(col_scale),
                                .grad = static_cast<const T*>(g.item(0)),
                                .x = static_cast<const T*>(in.item(0)),
                                .grad_x = need_x ? mutable_data<T>(grad_x) : nullptr,
                                .grad_weight = mutable_data<S>(grad_weight),
                                .dot = mutable_data<S>(dot),
                                .loop = self_loops != 0 ? mutable_data<S>(loop) : nullptr,
                                .grad_stride = g.stride,
                                .grad_batch_stride = g.batch_stride,
                                .x_stride = in.stride,
                                .x_batch_stride = in.batch_stride,
                                .batch = s.batch,
                                .features = s.features,
                                .self_loops = self_loops};
        AMSTEL_LAUNCH((spmm_grad_kernel<T, N, Tile, Row>),
                      blocks(op, divide_up(s.rows, kThreads / Row)), kThreads, 0, stream, a);
        check_launch(op);
      });
    });
  });
  return {grad_x, grad_weight, dot, loop};
}

Tensor edge_sum(Tensor crow, OptionalTensor edge, Tensor a, OptionalTensor b) {
  const char* op = "edge_sum";
  const ScalarType sum = check_edge_sum(op, crow, edge, a, b);
  const int64_t rows = crow.size(0) - 1;
  const CurrentStream stream(crow);
  Tensor out = empty(crow, {rows}, sum);
  if (rows == 0) return out;
  with_float(a.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    AMSTEL_LAUNCH((edge_sum_kernel<T>), blocks(op, divide_up(rows, kThreads / kEdgeTile)), kThreads,
                  0, stream, csr(crow, nullptr, edge), data<T>(a), data<S>(b),
                  mutable_data<S>(out));
    check_launch(op);
  });
  return out;
}

Tensor edge_add(Tensor crow, Tensor col, OptionalTensor edge, Tensor value, OptionalTensor row_term,
                OptionalTensor col_term, ScalarType dtype) {
  const char* op = "edge_add";
  check_edge_add(op, crow, col, edge, value, row_term, col_term, dtype);
  const int64_t rows = crow.size(0) - 1;
  const CurrentStream stream(crow);
  Tensor out = empty(value, {col.size(0)}, dtype);
  if (rows == 0) return out;
  with_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    AMSTEL_LAUNCH((edge_add_kernel<T>), blocks(op, divide_up(rows, kThreads / kEdgeTile)), kThreads,
                  0, stream, csr(crow, &col, edge), data<S>(value), data<S>(row_term),
                  data<S>(col_term), mutable_data<T>(out));
    check_launch(op);
  });
  return out;
}

namespace {

// One launch of column_sum_kernel: `blocks_x` sums of rows_per_block rows each.
template <class T, class Out>
void column_sum(const char* op, cudaStream_t stream, const T* in, const T* output, T* masked,
                Out* sums, int64_t rows, int64_t features, int64_t rows_per_block,
                int64_t blocks_x) {
  Alignment alignment;
  alignment.pointer(in).pointer(output).pointer(masked).bytes(features *
                                                              static_cast<int64_t>(sizeof(T)));
  const auto launch = [&](auto width, auto tile) {
    constexpr int N = decltype(width)::value, Tile = decltype(tile)::value;
    const int64_t parts = std::min(kGridYZ, divide_up(features, Tile * N));
    AMSTEL_LAUNCH((column_sum_kernel<T, Out, N, Tile>),
                  dim3(blocks(op, blocks_x), static_cast<unsigned>(parts)), kThreads, 0, stream, in,
                  output, masked, sums, rows, features, rows_per_block);
    check_launch(op);
  };
  // Eight lanes with 16 bytes each are a line of the cache, 32 with an element each the least
  // below.
  if (alignment.allows(16)) {
    launch(Int<kVectorWidth<T>>{}, Int<8>{});
  } else {
    launch(Int<1>{}, Int<32>{});
  }
}

}  // namespace

std::tuple<Tensor, Tensor> epilogue_grad(Tensor grad, OptionalTensor output) {
  const char* op = "epilogue_grad";
  check_epilogue(op, grad, output);
  const int64_t features = grad.size(grad.dim() - 1);
  const int64_t rows = features ? grad.numel() / features : 0;
  const CurrentStream stream(grad);
  const Tensor g = torch::stable::contiguous(grad);
  Tensor grad_in = output ? torch::stable::empty_like(g) : empty(g, {0});
  if (output) output = torch::stable::contiguous(*output);
  Tensor grad_bias = empty(g, {features});
  if (features == 0) return {grad_in, grad_bias};
  // At most 1024 sums for the second launch; how many is a function of the shape alone.
  const int64_t rows_per_block = std::max<int64_t>(64, divide_up(rows, 1024));
  const int64_t parts = divide_up(rows, rows_per_block);
  Tensor partial = empty(g, {parts, features}, sum_dtype(grad.scalar_type()));
  with_float(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    if (rows > 0)
      column_sum<T, S>(op, stream, data<T>(g), data<T>(output),
                       output ? mutable_data<T>(grad_in) : nullptr, mutable_data<S>(partial), rows,
                       features, rows_per_block, parts);
    column_sum<S, T>(op, stream, data<S>(partial), nullptr, nullptr, mutable_data<T>(grad_bias),
                     parts, features, parts, 1);
  });
  return {grad_in, grad_bias};
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  using Kept = amstel::KeptProducts<&amstel::cuda::spmm, 1>;
  m.impl("spmm", TORCH_BOX(&amstel::cuda::spmm));
  m.impl("spmm_keep", TORCH_BOX(&Kept::keep));
  m.impl("spmm_kept", TORCH_BOX(&Kept::compute));
  m.impl("spmm_grad", TORCH_BOX(&amstel::cuda::spmm_grad));
  m.impl("edge_sum", TORCH_BOX(&amstel::cuda::edge_sum));
  m.impl("edge_add", TORCH_BOX(&amstel::cuda::edge_add));
  m.impl("epilogue_grad", TORCH_BOX(&amstel::cuda::epilogue_grad));
}
