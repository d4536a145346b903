// Products that one graph is asked for again and again: all but x is kept under a number, since
// handing eleven arguments over takes longer than the product of a small graph.
#pragma once
#include <pthread.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "common/check.h"

namespace amstel {

// `kSpmm` is the operator of a device. Each device has its own library and numbers: kFirst + 2 k.
template <auto kSpmm, int64_t kFirst>
class KeptProducts {
 public:
  // The number, in a tensor with whose storage the product goes.
  static Tensor keep(Tensor crow, Tensor col, OptionalTensor edge, OptionalTensor weight,
                     OptionalTensor row_scale, OptionalTensor col_scale, int64_t cols,
                     double self_loops, bool relu) {
    auto number = std::make_unique<int64_t>();
    {
      const std::lock_guard lock(all().mutex);
      *number = kFirst + 2 * all().count++;
      all().products[*number] = std::make_shared<const Product>(
          Product{crow, col, edge, weight, row_scale, col_scale, cols, self_loops, relu});
    }
    return torch::stable::from_blob(
        number.release(), {1}, {1}, torch::stable::Device(torch::headeronly::DeviceType::CPU),
        ScalarType::Long, +[](void* data) {
          const std::unique_ptr<int64_t> number(static_cast<int64_t*>(data));
          std::shared_ptr<const Product> last;  // goes when others may look again
          const std::lock_guard lock(all().mutex);
          const auto found = all().products.find(*number);
          last = std::move(found->second);
          all().products.erase(found);
        });
  }

  // `rows` are those of the result, for whoever knows no numbers.
  static Tensor compute(Tensor x, int64_t product, int64_t rows) {
    const auto p = find(product);
    AMSTEL_CHECK(rows == p->crow.size(0) - 1, "spmm_kept: `rows` must be ", p->crow.size(0) - 1,
                 ", got ", rows);
    AMSTEL_CHECK(x.dim() >= 2 && x.size(x.dim() - 2) == p->cols, "spmm_kept: `x` must be [",
                 p->cols, ", features] or [batch, ", p->cols, ", features], got ", describe(x));
    return kSpmm(p->crow, p->col, p->edge, p->weight, x, p->row_scale, p->col_scale, p->self_loops,
                 OptionalTensor(), p->relu, false, OptionalTensor());
  }

 private:
  struct Product {
    Tensor crow, col;
    OptionalTensor edge, weight, row_scale, col_scale;
    int64_t cols;
    double self_loops;
    bool relu;
  };
  struct All {
    std::mutex mutex;
    std::unordered_map<int64_t, std::shared_ptr<const Product>> products;
    int64_t count = 0;
  };
  // Never destroyed: tensors may outlive the library's other objects. A process forks while no
  // thread holds the lock, which nobody would open in the child.
  static All& all() {
    static All* const found = [] {
      pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); },
                     [] { all().mutex.unlock(); });
      return new All;
    }();
    return *found;
  }
  static std::shared_ptr<const Product> find(int64_t number) {
    const std::lock_guard lock(all().mutex);
    const auto found = all().products.find(number);
    AMSTEL_CHECK(found != all().products.end(),
                 "spmm_kept: `product` must be a number of spmm_keep on the device of `x`, got ",
                 number);
    return found->second;
  }
};

}  // namespace amstel
