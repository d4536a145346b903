// Small matrices turned in registers: pairs of vectors exchange single lanes, then pairs of lanes,
// and so on.
#pragma once
#include <utility>

#include "cpu/kernels/vector.h"

namespace amstel::AMSTEL_ISA {

template <int kBit, int L, class V, int... I>
inline __attribute__((always_inline)) void exchange(V& a, V& b, std::integer_sequence<int, I...>) {
  const V low = __builtin_shufflevector(a, b, ((I & kBit) ? L + I - kBit : I)...);
  b = __builtin_shufflevector(a, b, ((I & kBit) ? L + I : I + kBit)...);
  a = low;
}

template <int kBit, class S, int L>
inline __attribute__((always_inline)) void transpose_step(Vector<S, L>* v) {
  if constexpr (kBit < L) {
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i)
      if (!(i & kBit)) exchange<kBit, L>(v[i], v[i + kBit], std::make_integer_sequence<int, L>{});
    transpose_step<2 * kBit, S, L>(v);
  }
}

// An L x L matrix in L vectors.
template <class S, int L>
inline __attribute__((always_inline)) void transpose(Vector<S, L>* v) {
  transpose_step<1, S, L>(v);
}

}  // namespace amstel::AMSTEL_ISA
