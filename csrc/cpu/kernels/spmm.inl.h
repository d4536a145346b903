// Normalized sparse-dense product and its gradient, torch-free.
//
// Data flow.  spmm reads crow, col and (optionally) weight and scales once a feature tile, gathers
// one row of x an edge, and writes each row of y once: about 4 bytes an edge of structure, plus
// features * sizeof(T) an edge gathered and a row written. A tile of a row lives in registers from
// its first edge to bias and activation. Threads own rows, so sums never depend on their number.
// Short narrow rows are taken by their degree, 64 at a time.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/vector.h"

namespace amstel::AMSTEL_ISA {

#if defined(__AVX512F__)
constexpr int kTile = 16, kGradTile = 8;
#else
constexpr int kTile = 8, kGradTile = 4;
#endif

// What an edge is multiplied by: scale[j] or 1, or times that, where there is a scale, weight[k] or
// weight[edge[k]]. Known to the compiler, since an edge of a narrow row costs little more than to
// ask; but kAny asks.
enum class Weights { kOnes, kScales, kSlots, kEdges, kAny };

template <class T, class I, Weights kWeights>
struct Coefficient {
  static constexpr bool by_edge = kWeights == Weights::kEdges;
  const I* edge;
  const T* weight;
  const Sum<T>* scale;
  inline __attribute__((always_inline)) Sum<T> operator()(int64_t k, int64_t j) const {
    if constexpr (kWeights == Weights::kOnes) return 1;
    if constexpr (kWeights == Weights::kScales) return scale[j];
    if (kWeights == Weights::kAny && !weight) return scale ? scale[j] : 1;
    const bool by_edge = kWeights == Weights::kEdges || (kWeights == Weights::kAny && edge);
    const Sum<T> c = load_one(weight + (by_edge ? static_cast<int64_t>(edge[k]) : k));
    return scale ? c * scale[j] : c;
  }
};

// Whether the product is compiled for each kind of weights, and for short rows: indices of 64 bits
// are those of graphs so large that rows are never near, and not worth the compiler's time.
template <class I>
constexpr bool kTuned = sizeof(I) == 4;

// f(coefficient)
template <class T, class I, class F>
inline void with_coefficient(const void* edge, const void* weight, const void* scale, const F& f) {
  const auto* e = static_cast<const I*>(edge);
  const auto* w = static_cast<const T*>(weight);
  const auto* s = static_cast<const Sum<T>*>(scale);
  if constexpr (!kTuned<I>)
    f(Coefficient<T, I, Weights::kAny>{e, w, s});
  else if (!w && !s)
    f(Coefficient<T, I, Weights::kOnes>{e, w, s});
  else if (!w)
    f(Coefficient<T, I, Weights::kScales>{e, w, s});
  else if (!e)
    f(Coefficient<T, I, Weights::kSlots>{e, w, s});
  else
    f(Coefficient<T, I, Weights::kEdges>{e, w, s});
}

// Where x outgrows a cache, tiles of kFetched bytes and more are fetched so many edges ahead;
// smaller ones the processor has under way by itself.
constexpr int64_t kAhead = 16, kGradAhead = 8;
constexpr int kFetched = 128;

// Inlined by force: GCC takes a function of nothing but fetches for one without effect, and drops
// its calls.
template <int kBytes, int kWrite = 0, class T>
inline __attribute__((always_inline)) void prefetch(const T* p) {
  for (int b = 0; b < kBytes; b += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(p) + b, kWrite);
}

// One bit for each of 64 bytes that equals `value`.
inline uint64_t equal(const uint8_t* bytes, uint8_t value) {
#if defined(__AVX512BW__)
  return _mm512_cmpeq_epi8_mask(load_raw<__m512i>(bytes), _mm512_set1_epi8(value));
#else
  uint64_t found = 0;
#if defined(__AVX2__)
  for (int b = 0; b < 64; b += 32) {
    const __m256i same = _mm256_cmpeq_epi8(load_raw<__m256i>(bytes + b), _mm256_set1_epi8(value));
    found |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(same))} << b;
  }
#elif defined(__SSE2__)
  for (int b = 0; b < 64; b += 16) {
    const __m128i same = _mm_cmpeq_epi8(load_raw<__m128i>(bytes + b), _mm_set1_epi8(value));
    found |= uint64_t{static_cast<uint32_t>(_mm_movemask_epi8(same))} << b;
  }
#else
  for (int b = 0; b < 64; ++b) found |= uint64_t{bytes[b] == value} << b;
#endif
  return found;
#endif
}

// Tiles of so many bytes are gathered from kTogether rows at a time, vector by vector: as many
// streams for the processor to foresee. To fetch ahead would slow them down; but the rows of y,
// among so many that are read, it does not foresee.
constexpr int kWide = 512, kTogether = 8;

// Where the sums of a tile have so few bytes and a row so few edges, to guess wrong when a row ends
// takes as long as to add it up.
constexpr int64_t kNarrow = 128, kShort = 8;

// f<D>(row) for every row; of 64 rows at a time those with as many edges come one after the other.
// D is that number where the loop over the edges shall be written out, else -1.
template <bool kWriteOut, class I, class F>
inline __attribute__((always_inline)) void by_degree(const I* crow, int64_t row_begin,
                                                     int64_t row_end, const F& f) {
  constexpr int kMost = 7;  // and more
  int64_t begin = row_begin;
  for (; begin + 64 <= row_end; begin += 64) {
    uint8_t degree[64];
    for (int64_t i = 0; i < 64; ++i) {
      const I edges = crow[begin + i + 1] - crow[begin + i];
      degree[i] = static_cast<uint8_t>(edges < kMost ? edges : kMost);
    }
    const auto rows_of = [&]<int D>(int degree_of) __attribute__((always_inline)) {
      for (uint64_t rows = equal(degree, static_cast<uint8_t>(degree_of)); rows; rows &= rows - 1)
        f.template operator()<D>(begin + __builtin_ctzll(rows));
    };
    if constexpr (kWriteOut) {
      [&]<int... D>(std::integer_sequence<int, D...>) __attribute__((always_inline)) {
        (rows_of.template operator()<D>(D), ...);
      }(std::make_integer_sequence<int, kMost>());
      rows_of.template operator()<-1>(kMost);
    } else {
      for (int d = 0; d <= kMost; ++d) rows_of.template operator()<-1>(d);
    }
  }
  for (; begin < row_end; ++begin) f.template operator()<-1>(begin);
}

// One tile of the features of rows [row_begin, row_end). A function of its own, with copies of what
// the arguments hold: a store to y could change those, for all that the compiler knows.
template <class T, class I, bool kFetch, class Tile, class C>
void spmm_tile(const cpu::SpmmArgs& a, const Tile tile, const C coefficient, int64_t row_begin,
               int64_t row_end) {
  using S = Sum<T>;
  constexpr int E = Tile::width, N = Tile::packs, kBytes = E * N * sizeof(T);
  using P = Pack<T, E>;
  const auto* const crow = static_cast<const I*>(a.crow);
  const auto* const col = static_cast<const I*>(a.col);
  const auto* const row_scale = static_cast<const S*>(a.row_scale);
  const auto* const bias = a.bias ? static_cast<const T*>(a.bias) + tile.begin : nullptr;
  const auto* const x = static_cast<const T*>(a.x) + tile.begin;
  T* const out = static_cast<T*>(a.y) + tile.begin;
  const S self_loops = static_cast<S>(a.self_loops);
  const int64_t x_stride = a.x_stride, y_stride = a.y_stride;
  const bool relu = a.relu, past_caches = a.stream;
  const int64_t stop = crow[row_end] - kAhead;

  // Row i, whose edges begin at k and are D unless that is -1; returns where they end. kPlain: it
  // has neither bias nor activation, and stays in the caches.
  const auto row = [&]<int D, bool kPlain = false>(int64_t i,
                                                   int64_t k) __attribute__((always_inline)) {
    const int64_t end = D < 0 ? crow[i + 1] : k + D;
    T* const y = out + i * y_stride;
    if (kBytes >= kWide && !past_caches && i + 2 < row_end) prefetch<kBytes, 1>(y + 2 * y_stride);
    P sum[N] = {};
    const auto gather = [&](S c, int64_t j) __attribute__((always_inline)) {
      const T* const row = x + j * x_stride;
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) sum[n].add(c, P::load(row + tile.offset(n)));
    };
    const auto gather_next = [&]<int kRows>() __attribute__((always_inline)) {
      const T* rows[kRows];
      S c[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r, ++k) {
        const int64_t j = col[k];
        rows[r] = x + j * x_stride;
        c[r] = coefficient(k, j);
      }
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sum[n].add(c[r], P::load(rows[r] + tile.offset(n)));
    };
    const auto add = [&](int64_t k) __attribute__((always_inline)) {
      const int64_t j = col[k];
      if (kFetch && k < stop) prefetch<kBytes>(x + col[k + kAhead] * x_stride);
      gather(coefficient(k, j), j);
    };
    if (self_loops != 0)
      gather(coefficient.scale ? self_loops * coefficient.scale[i] : self_loops, i);
    if constexpr (kBytes >= kWide) {
      while (k + kTogether <= end) gather_next.template operator()<kTogether>();
      if (k + 4 <= end) gather_next.template operator()<4>();
      if (k + 2 <= end) gather_next.template operator()<2>();
    } else if constexpr (E * N * sizeof(S) > kNarrow) {
      // A narrow row takes less time than to guess wrong at the end of one more loop.
      for (; k + 4 <= end; k += 4) add(k), add(k + 1), add(k + 2), add(k + 3);
    }
    if constexpr (D >= 0) {
#pragma GCC unroll 8
      for (int r = 0; r < D; ++r) add(k + r);
    } else {
      for (; k < end; ++k) add(k);
    }
    const auto each = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) f(sum[n], tile.offset(n));
    };
    if (row_scale) each([&, s = row_scale[i]](P& v, int64_t) { v.scale(s); });
    if (!kPlain && bias) each([&](P& v, int64_t at) { v.add(P::load(bias + at)); });
    if (!kPlain && relu) each([&](P& v, int64_t) { v.keep_positive(v); });
    if (!kPlain && past_caches)
      each([&](P& v, int64_t at) { v.stream(y + at); });
    else
      each([&](P& v, int64_t at) { v.store(y + at); });
    return end;
  };
  if constexpr (kTuned<I> && E * N * sizeof(S) <= kNarrow)
    if (crow[row_end] - crow[row_begin] < kShort * (row_end - row_begin)) {
      constexpr bool kWriteOut = __is_same(T, float) && E >= 4 && !C::by_edge;
      const auto rows = [&]<bool kPlain>() __attribute__((always_inline)) {
        by_degree<kWriteOut>(crow, row_begin, row_end,
                             [&]<int D>(int64_t i) __attribute__((always_inline)) {
                               row.template operator()<D, kPlain>(i, crow[i]);
                             });
      };
      if constexpr (kWriteOut && E == kPackWidth<T>)
        if (!bias && !relu && !past_caches) return rows.template operator()<true>();
      return rows.template operator()<false>();
    }
  int64_t k = crow[row_begin];
  for (int64_t i = row_begin; i < row_end; ++i) k = row.template operator()<-1>(i, k);
}

template <class T, class I>
void spmm(const cpu::SpmmArgs& a, int64_t row_begin, int64_t row_end) {
  with_coefficient<T, I>(a.edge, a.weight, a.col_scale, [&](auto coefficient) {
    for_tiles<T, kTile>(a.features, [&](auto tile) {
      constexpr int kBytes = tile.width * tile.packs * sizeof(T);
      if constexpr (kBytes >= kFetched && kBytes < kWide)
        if (a.fetch) return spmm_tile<T, I, true>(a, tile, coefficient, row_begin, row_end);
      spmm_tile<T, I, false>(a, tile, coefficient, row_begin, row_end);
    });
  });
  if (a.stream) stream_end();
}

// Row j of the transposed matrix holds x[j] and the sum for grad_x[j] in registers and gathers each
// grad[i] once for both: grad_x += c grad[i], grad_weight = <grad[i], x[j]>.
template <class T, class I>
void spmm_grad(const cpu::SpmmGradArgs& a, int64_t row_begin, int64_t row_end) {
  using S = Sum<T>;
  const auto* crow = static_cast<const I*>(a.crow);
  const auto* col = static_cast<const I*>(a.col);
  const auto* edge = static_cast<const I*>(a.edge);
  const auto* weight = static_cast<const T*>(a.weight);
  const auto* row_scale = static_cast<const S*>(a.row_scale);
  const auto* col_scale = static_cast<const S*>(a.col_scale);
  const auto* grad = static_cast<const T*>(a.grad);
  const auto* x = static_cast<const T*>(a.x);
  auto* grad_x = static_cast<T*>(a.grad_x);
  auto* grad_weight = static_cast<S*>(a.grad_weight);
  auto* dot = static_cast<S*>(a.dot);
  auto* loop = static_cast<S*>(a.loop);
  const S self_loops = static_cast<S>(a.self_loops);
  const int64_t stop = crow[row_end] - kGradAhead;

  if (!a.accumulate) {
    for (int64_t j = row_begin; j < row_end; ++j) {
      dot[j] = 0;
      if (loop) loop[j] = 0;
      if (a.features == 0)
        for (int64_t k = crow[j]; k < crow[j + 1]; ++k) grad_weight[edge[k]] = 0;
    }
  }
  for_tiles<T, kGradTile>(a.features, [&](auto tile) {
    constexpr int E = decltype(tile)::width, N = decltype(tile)::packs;
    using P = Pack<T, E>;
    const bool add = a.accumulate || tile.begin > 0;
    for (int64_t j = row_begin; j < row_end; ++j) {
      const S scale_j = col_scale ? col_scale[j] : S(1);
      P sum[N] = {}, x_j[N], g[N];
      for (int n = 0; n < N; ++n)
        x_j[n] = P::load(x + j * a.x_stride + tile.begin + tile.offset(n));
      if (tile.repeated) x_j[N - 1].drop(tile.repeated);
      // Adds c grad[i] to the sum and returns <grad[i], x[j]>.
      const auto gather = [&](S c, int64_t i) __attribute__((always_inline)) {
        const T* row = grad + i * a.grad_stride + tile.begin;
        for (int n = 0; n < N; ++n) g[n] = P::load(row + tile.offset(n));
        for (int n = 0; n < N; ++n) sum[n].add(c, g[n]);
        return inner<T, E, N>(x_j, g);
      };
      if (self_loops != 0) {
        const S c = row_scale ? self_loops * row_scale[j] : self_loops;
        loop[j] += c * scale_j * gather(c, j);
      }
      const int64_t end = crow[j + 1];
      for (int64_t k = crow[j]; k < end; ++k) {
        const int64_t i = col[k];
        // Written all over the place, in the order in which the edges were given.
        if (k < stop) {
          __builtin_prefetch(grad_weight + edge[k + kGradAhead], 1);
          if (a.prefetch)
            prefetch<E * N * sizeof(T)>(grad + col[k + kGradAhead] * a.grad_stride + tile.begin);
        }
        S c = weight ? load_one(weight + edge[k]) : S(1);
        if (row_scale) c *= row_scale[i];
        const S d = gather(c, i) * (row_scale ? row_scale[i] * scale_j : scale_j);
        S* out = grad_weight + edge[k];
        *out = add ? *out + d : d;
      }
      for (int n = 0; n < N; ++n) {
        sum[n].scale(scale_j);
        if (grad_x) sum[n].store(grad_x + j * a.features + tile.begin + tile.offset(n));
      }
      dot[j] += inner<T, E, N>(x_j, sum);
    }
  });
}

// Masks grad by the sign of the output and sums over the rows given, features in registers.
template <class T>
void epilogue_grad(const cpu::EpilogueArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  const auto* grad = static_cast<const T*>(a.grad);
  const auto* output = static_cast<const T*>(a.output);
  auto* grad_in = static_cast<T*>(a.grad_in);
  auto* total = static_cast<S*>(a.sum);
  for_tiles<T, 4>(a.features, [&](auto tile) {
    constexpr int E = decltype(tile)::width, N = decltype(tile)::packs;
    using P = Pack<T, E>;
    P sum[N] = {};
    for (int64_t i = begin; i < end; ++i) {
      for (int n = 0; n < N; ++n) {
        const int64_t f = tile.begin + tile.offset(n);
        P g = P::load(grad + i * a.grad_stride + f);
        if (output) {
          g.keep_positive(P::load(output + i * a.output_stride + f));
          g.store(grad_in + i * a.features + f);
        }
        sum[n].add(g);
      }
    }
    for (int n = 0; n < N; ++n)
      for (int k = 0; k < P::K; ++k)
        for (int l = 0; l < P::W; ++l)
          total[tile.begin + tile.offset(n) + l * P::K + k] = sum[n].v[k][l];
  });
}

}  // namespace amstel::AMSTEL_ISA
