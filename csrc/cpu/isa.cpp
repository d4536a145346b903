// Chooses the CPU kernels: the widest instruction set that this machine runs, or AMSTEL_CPU_ISA.
#include "cpu/isa.h"

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.h"

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
namespace {

// All that were built, the widest first. A table is looked at only where the machine runs its code.
struct Isa {
  const char* name;
  const Kernels& (*kernels)();
  bool runs;
};

std::vector<Isa> isas() {
  return {
#ifdef AMSTEL_HAS_AVX512
      {"avx512", avx512::kernels, __builtin_cpu_supports("x86-64-v4") != 0},
#endif
#ifdef AMSTEL_HAS_AVX2
      {"avx2", avx2::kernels, __builtin_cpu_supports("x86-64-v3") != 0},
#endif
      {"base", base::kernels, true}};
}

const Kernels& choose() {
  const char* wanted = std::getenv("AMSTEL_CPU_ISA");
  std::string known;
  for (const Isa& isa : isas()) {
    if (!isa.runs) continue;
    if (!wanted || std::string_view(wanted) == isa.name) return isa.kernels();
    known += std::string(known.empty() ? "" : ", ") + isa.name;
  }
  fail("AMSTEL_CPU_ISA must be one of ", known, " on this machine, got '", wanted, "'");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace cpu

std::string cpu_isa() { return cpu::kernels().isa; }

std::string build_info() { return "torch " AMSTEL_BUILT_WITH_TORCH ", gcc " __VERSION__; }

}  // namespace amstel

STABLE_TORCH_LIBRARY_IMPL(amstel, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&amstel::cpu_isa));
  m.impl("build_info", TORCH_BOX(&amstel::build_info));
}
