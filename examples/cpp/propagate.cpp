// Averages the features of a node's neighbors, as a layer of a GCN does: the operators of amstel by
// their schemas (csrc/library.cpp), called through libtorch's dispatcher.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <amstel/cpu/isa.h>

#include <iostream>
#include <optional>
#include <tuple>

namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

template <class Function>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

}  // namespace

int main() {
  using FromCoo = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, int64_t, int64_t,
                                                     const Optional&);
  using Spmm = Tensor(const Tensor&, const Tensor&, const Optional&, const Optional&, const Tensor&,
                      const Optional&, const Optional&, double, const Optional&, bool, bool,
                      const Optional&);

  // A path of four nodes, 0 - 1 - 2 - 3; row is the target of an edge, col its source.
  const Tensor row = at::tensor({0, 1, 1, 2, 2, 3}, at::kLong);
  const Tensor col = at::tensor({1, 0, 2, 1, 3, 2}, at::kLong);
  const auto [crow, cols, edge] =
      find<FromCoo>("amstel::csr_from_coo").call(row, col, 4, 4, std::nullopt);

  // D^-1/2 (A + I) D^-1/2 x
  const Tensor degree = crow.diff().to(at::kFloat) + 1;
  const Tensor scale = degree.rsqrt();
  const Tensor x = at::eye(4);
  const Tensor y = find<Spmm>("amstel::spmm")
                       .call(crow, cols, edge, std::nullopt, x, scale, scale, 1.0, std::nullopt,
                             false, true, std::nullopt);

  const Tensor dense = at::eye(4).index_put({row, col}, at::ones(6));
  const Tensor expected = scale.unsqueeze(1) * dense * scale;
  std::cout << y << "\nkernels: " << amstel::cpu::kernels().isa << std::endl;
  return at::allclose(y, expected) ? 0 : 1;
}
