// The instruction sets of this build (AMSTEL_HAS_*, cmake/isa.cmake). Not for kernels.
#pragma once
#include <vector>

#include "cpu/isa.h"

namespace amstel {
namespace base {
const cpu::Kernels& kernels();
}
#ifdef AMSTEL_HAS_AVX2
namespace avx2 {
const cpu::Kernels& kernels();
}
#endif
#ifdef AMSTEL_HAS_AVX512
namespace avx512 {
const cpu::Kernels& kernels();
}
#endif

namespace cpu {

// A table is looked at only where the machine runs its code.
struct Isa {
  const char* name;
  const Kernels& (*kernels)();
  bool runs;
};

// The widest first.
inline std::vector<Isa> isas() {
  return {
#ifdef AMSTEL_HAS_AVX512
      {"avx512", avx512::kernels, __builtin_cpu_supports("x86-64-v4") != 0},
#endif
#ifdef AMSTEL_HAS_AVX2
      {"avx2", avx2::kernels, __builtin_cpu_supports("x86-64-v3") != 0},
#endif
      {"base", base::kernels, true}};
}

}  // namespace cpu
}  // namespace amstel
