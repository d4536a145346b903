// Samples of graphs on the CPU: neighbors of some nodes, the subgraph that some nodes induce,
// random walks. Draws follow from the key and the node, so that threads may take any of them.
//
// A batch touches a few rows of a large graph at random places: what costs is waiting for memory,
// so every loop asks for what it will need some steps before it does.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <memory>
#include <tuple>
#include <vector>

#include "common/spmm_check.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/huge_pages.h"
#include "cpu/parallel.h"
#include "cpu/sampling.h"

namespace amstel::cpu {
namespace {

constexpr int64_t kAhead = 16, kRowsAhead = 4;
constexpr int64_t kEdgeWork = 64;  // a draw and a line of memory

template <class I>
constexpr ScalarType index_type = sizeof(I) == 4 ? ScalarType::Int : ScalarType::Long;

// Node numbers from outside: in range, and each once where they number a matrix.
void check_nodes(const char* op, const char* name, const Tensor& crow, const Tensor& nodes) {
  AMSTEL_CHECK(nodes.dim() == 1, op, ": `", name, "` must be a vector, got ", describe(nodes));
  check_vector(op, crow, name, nodes, nodes.size(0), ScalarType::Long);
  const int64_t *node = data<int64_t>(nodes), rows = crow.size(0) - 1;
  for (int64_t i = 0; i < nodes.size(0); ++i)
    AMSTEL_CHECK(node[i] >= 0 && node[i] < rows, op, ": `", name,
                 "` must be numbers of nodes from 0 to ", rows - 1, ", got ", node[i],
                 " at position ", i);
}

template <class I>
void number(const char* op, const char* name, Numbers<I>& numbers, const Tensor& nodes) {
  const int64_t* node = data<int64_t>(nodes);
  for (int64_t i = 0, n = nodes.size(0); i < n; ++i) {
    if (i + kAhead < n) numbers.prefetch(static_cast<I>(node[i + kAhead]));
    AMSTEL_CHECK(numbers.add(static_cast<I>(node[i])) == i, op, ": `", name,
                 "` must name a node once, got ", node[i], " more than once, at position ", i);
  }
}

// f(begin, end) over the rows of a CSR matrix that is made, on one thread or on as many as pay.
template <class I, class F>
void over_rows(const I* crow, int64_t rows, bool parallel, const F& f) {
  if (parallel)
    parallel_rows(crow, rows, kEdgeWork, f);
  else
    f(int64_t{0}, rows);
}

template <class I>
void prefix(const char* op, I* crow, int64_t rows) {
  int64_t sum = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t here = crow[i + 1];
    AMSTEL_CHECK(sum <= std::numeric_limits<I>::max() - here, op,
                 ": the sample must have less than 2^", 8 * sizeof(I) - 1, " edges");
    crow[i + 1] = static_cast<I>(sum += here);
  }
}

struct Sample {
  Tensor crow, col, slot, scale, nodes;
};

template <class I>
Sample sample(const char* op, const Tensor& crow, const Tensor& col, const OptionalTensor& chance,
              const Tensor& targets, int64_t fanout, bool replace, uint64_t key, bool parallel) {
  const int64_t rows = targets.size(0);
  const I *start = data<I>(crow), *cols = data<I>(col);
  const int64_t* node = data<int64_t>(targets);
  const float* chances = data<float>(chance);

  Tensor crow_out = empty(crow, {rows + 1}, index_type<I>);
  I* first = mutable_data<I>(crow_out);
  first[0] = 0;
  bool whole = !replace;  // every edge of every target is in the sample once
  for (int64_t i = 0; i < rows; ++i) {
    if (i + kAhead < rows) __builtin_prefetch(&start[node[i + kAhead]]);
    const int64_t begin = start[node[i]];
    int64_t degree = start[node[i] + 1] - begin;
    if (chances && fanout >= 0) {
      const int64_t end = begin + degree;
      for (int64_t k = begin; k < end; ++k) degree -= chances[k] == 0;
    }
    whole &= fanout < 0 || degree <= fanout;
    first[i + 1] = static_cast<I>(fanout < 0 ? degree
                                  : replace  ? (degree ? fanout : 0)
                                             : std::min(degree, fanout));
  }
  prefix(op, first, rows);
  const int64_t edges = first[rows];

  Tensor slot_out = empty(crow, {edges}, index_type<I>),
         col_out = empty(crow, {edges}, index_type<I>);
  Tensor scale_out = empty(crow, {whole ? 0 : edges}, ScalarType::Double);
  I *slot = mutable_data<I>(slot_out), *source = mutable_data<I>(col_out);
  double* scale = whole ? nullptr : mutable_data<double>(scale_out);
  over_rows(first, rows, parallel, [&](int64_t row, int64_t end) {
    Chooser chooser;
    for (int64_t i = row; i < end; ++i) {
      if (i + kAhead < end) __builtin_prefetch(&start[node[i + kAhead]]);
      const int64_t begin = start[node[i]], degree = start[node[i] + 1] - begin;
      const int64_t count = first[i + 1] - first[i];
      I* out = slot + first[i];
      double* factor = scale ? scale + first[i] : nullptr;
      if (count == 0) continue;
      if (!chances && !(replace && fanout >= 0) && count == degree) {
        for (int64_t k = 0; k < degree; ++k) out[k] = static_cast<I>(begin + k);
        if (scale) std::fill_n(factor, count, 1.0);
        continue;
      }
      Random random(key, static_cast<uint64_t>(node[i]));
      if (!chances) {
        if (replace)
          for (int64_t k = 0; k < count; ++k)
            out[k] = static_cast<I>(begin + static_cast<int64_t>(random.below(degree)));
        else
          chooser.subset(random, begin, degree, count, out);
        std::fill_n(factor, count, static_cast<double>(degree) / static_cast<double>(count));
        continue;
      }
      if (fanout < 0) {
        for (int64_t k = 0; k < degree; ++k) out[k] = static_cast<I>(begin + k);
        if (scale) std::fill_n(factor, count, 1.0);
        continue;
      }
      if (replace) {
        chooser.weighted(random, chances, begin, degree, count, out, factor);
        continue;
      }
      int64_t positive = 0;
      for (int64_t k = begin; k < begin + degree; ++k) positive += chances[k] > 0;
      if (positive > count) {
        chooser.weighted_subset(random, chances, begin, degree, count, out, factor);
        continue;
      }
      for (int64_t k = begin, m = 0; k < begin + degree; ++k)
        if (chances[k] > 0) out[m++] = static_cast<I>(k);
      if (scale) std::fill_n(factor, count, 1.0);
    }
    for (int64_t k = first[row]; k < first[end]; ++k) {
      if (k + kAhead < first[end]) __builtin_prefetch(&cols[slot[k + kAhead]]);
      source[k] = cols[slot[k]];
    }
  });

  // Targets first, then the others in the order of the edges.
  const int64_t most = rows + std::min<int64_t>(edges, crow.size(0) - 1);
  Numbers<I> numbers(most);
  number(op, "targets", numbers, targets);
  std::vector<int64_t> more;
  more.reserve(most - rows);
  for (int64_t k = 0; k < edges; ++k) {
    if (k + kAhead < edges) numbers.prefetch(source[k + kAhead]);
    const I found = source[k], own = numbers.add(found);
    if (own == rows + static_cast<int64_t>(more.size())) more.push_back(found);
    source[k] = own;
  }
  Tensor nodes = empty(targets, {numbers.size()}, ScalarType::Long);
  int64_t* all = mutable_data<int64_t>(nodes);
  std::copy_n(node, rows, all);
  std::copy(more.begin(), more.end(), all + rows);
  return {crow_out, col_out, slot_out, scale_out, nodes};
}

template <class I>
std::tuple<Tensor, Tensor, Tensor> induced(const char* op, const Tensor& crow, const Tensor& col,
                                           const Tensor& nodes, bool parallel) {
  const int64_t rows = nodes.size(0);
  const I *start = data<I>(crow), *cols = data<I>(col);
  const int64_t* node = data<int64_t>(nodes);
  Numbers<I> numbers(rows);
  number(op, "nodes", numbers, nodes);

  // How many edges there are to look through, so that the threads have equal shares.
  std::unique_ptr<int64_t[]> work(new int64_t[rows + 1]);
  work[0] = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (i + kAhead < rows) __builtin_prefetch(&start[node[i + kAhead]]);
    work[i + 1] = work[i] + start[node[i] + 1] - start[node[i]];
  }
  Tensor crow_out = empty(crow, {rows + 1}, index_type<I>);
  I* first = mutable_data<I>(crow_out);
  first[0] = 0;
  // f(number of the source, slot) for every edge of row i that has one.
  const auto each = [&](int64_t i, const auto& f) {
    const int64_t end = start[node[i] + 1];
    for (int64_t k = start[node[i]]; k < end; ++k) {
      if (k + kAhead < col.size(0)) numbers.prefetch(cols[k + kAhead]);
      const I found = numbers.find(cols[k]);
      if (found >= 0) f(found, k);
    }
  };
  over_rows(work.get(), rows, parallel, [&](int64_t row, int64_t end) {
    for (int64_t i = row; i < end; ++i) {
      I count = 0;
      each(i, [&](I, int64_t) { ++count; });
      first[i + 1] = count;
    }
  });
  prefix(op, first, rows);
  Tensor col_out = empty(crow, {first[rows]}, index_type<I>);
  Tensor slot_out = empty(crow, {first[rows]}, index_type<I>);
  I *source = mutable_data<I>(col_out), *slot = mutable_data<I>(slot_out);
  over_rows(work.get(), rows, parallel, [&](int64_t row, int64_t end) {
    for (int64_t i = row; i < end; ++i) {
      int64_t at = first[i];
      each(i, [&](I found, int64_t k) {
        source[at] = found;
        slot[at++] = static_cast<I>(k);
      });
    }
  });
  return {crow_out, col_out, slot_out};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sample_neighbors(Tensor crow, Tensor col,
                                                                    OptionalTensor chance,
                                                                    Tensor targets, int64_t fanout,
                                                                    bool replace, int64_t key,
                                                                    bool parallel) {
  const char* op = "sample_neighbors";
  check_csr(op, crow, col, std::nullopt);
  check_edges(op, crow, col);
  check_nodes(op, "targets", crow, targets);
  if (chance) check_vector(op, crow, "chance", *chance, col.size(0), ScalarType::Float);
  AMSTEL_CHECK(fanout >= -1 && fanout < std::numeric_limits<int32_t>::max(), op,
               ": `fanout` must be -1, for all neighbors, or from 0 to 2^31 - 2, got ", fanout);
  Sample out;
  with_index(op, "crow", crow, [&](auto type) {
    out = sample<typename decltype(type)::type>(op, crow, col, chance, targets, fanout, replace,
                                                static_cast<uint64_t>(key), parallel);
  });
  return {out.crow, out.col, out.slot, out.scale, out.nodes};
}

std::tuple<Tensor, Tensor, Tensor> induced_subgraph(Tensor crow, Tensor col, Tensor nodes,
                                                    bool parallel) {
  const char* op = "induced_subgraph";
  check_csr(op, crow, col, std::nullopt);
  check_edges(op, crow, col);
  check_nodes(op, "nodes", crow, nodes);
  std::tuple<Tensor, Tensor, Tensor> out;
  with_index(op, "crow", crow, [&](auto type) {
    out = induced<typename decltype(type)::type>(op, crow, col, nodes, parallel);
  });
  return out;
}

Tensor gather_rows(Tensor x, Tensor index, bool parallel) {
  const char* op = "gather_rows";
  AMSTEL_CHECK(x.dim() == 2 && x.is_contiguous() && x.scalar_type() == ScalarType::Byte, op,
               ": `x` must be contiguous bytes [rows, width], got ", describe(x));
  AMSTEL_CHECK(index.dim() == 1, op, ": `index` must be a vector, got ", describe(index));
  check_vector(op, x, "index", index, index.size(0), ScalarType::Long);
  const int64_t rows = x.size(0), width = x.size(1), count = index.size(0);
  const int64_t* from = data<int64_t>(index);
  for (int64_t i = 0; i < count; ++i)
    AMSTEL_CHECK(from[i] >= 0 && from[i] < rows, op, ": `index` must be from 0 to ", rows - 1,
                 ", got ", from[i], " at position ", i);
  Tensor out = empty(x, {count, width}, ScalarType::Byte);
  const uint8_t* source = data<uint8_t>(x);
  uint8_t* target = mutable_data<uint8_t>(out);
  want_huge_pages(out);
  const int64_t parts = parallel ? threads_for(count * width) : 1;
  parallel_parts(parts, [&](int64_t part) {
    const int64_t end = count * (part + 1) / parts;
    for (int64_t i = count * part / parts; i < end; ++i) {
      // The lines of a row that the hardware will not guess, some rows before they are copied.
      if (i + kRowsAhead < end) {
        const uint8_t* next = source + from[i + kRowsAhead] * width;
        for (int64_t b = 0; b < width && b < 512; b += 64) __builtin_prefetch(next + b);
      }
      std::memcpy(target + i * width, source + from[i] * width, width);
    }
  });
  return out;
}

Tensor random_walk(Tensor crow, Tensor col, Tensor starts, int64_t length, int64_t key) {
  const char* op = "random_walk";
  check_csr(op, crow, col, std::nullopt);
  check_edges(op, crow, col);
  check_nodes(op, "starts", crow, starts);
  AMSTEL_CHECK(length >= 0 && length < std::numeric_limits<int32_t>::max(), op,
               ": `length` must be from 0 to 2^31 - 2, got ", length);
  const int64_t walks = starts.size(0);
  Tensor out = empty(starts, {walks, length + 1}, ScalarType::Long);
  int64_t* path = mutable_data<int64_t>(out);
  const int64_t* node = data<int64_t>(starts);
  with_index(op, "crow", crow, [&](auto type) {
    using I = typename decltype(type)::type;
    const I *start = data<I>(crow), *cols = data<I>(col);
    // All walks step by step, so that they do not wait for one another's memory.
    std::vector<Random> random;
    random.reserve(walks);
    for (int64_t w = 0; w < walks; ++w) {
      random.emplace_back(static_cast<uint64_t>(key), static_cast<uint64_t>(w));
      path[w * (length + 1)] = node[w];
    }
    for (int64_t step = 0; step < length; ++step)
      for (int64_t w = 0; w < walks; ++w) {
        int64_t* at = path + w * (length + 1) + step;
        const int64_t begin = start[*at], degree = start[*at + 1] - begin;
        at[1] = degree ? cols[begin + static_cast<int64_t>(random[w].below(degree))] : *at;
      }
  });
  return out;
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("sample_neighbors", TORCH_BOX(&amstel::cpu::sample_neighbors));
  m.impl("induced_subgraph", TORCH_BOX(&amstel::cpu::induced_subgraph));
  m.impl("gather_rows", TORCH_BOX(&amstel::cpu::gather_rows));
  m.impl("random_walk", TORCH_BOX(&amstel::cpu::random_walk));
}
