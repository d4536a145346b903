// Chooses the CPU kernels: the widest instruction set that this machine runs, or AMSTEL_CPU_ISA.
#include "cpu/isa.h"

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>

#include "common/check.h"

namespace amstel {
namespace base {
extern const cpu::Kernels kernels;
}
#ifdef AMSTEL_HAS_AVX2
namespace avx2 {
extern const cpu::Kernels kernels;
}
#endif
#ifdef AMSTEL_HAS_AVX512
namespace avx512 {
extern const cpu::Kernels kernels;
}
#endif

namespace cpu {
namespace {

struct Choice {
  const Kernels* kernels;
  bool runs;
};

const Kernels& choose() {
  const Choice choices[] = {
#ifdef AMSTEL_HAS_AVX512
      {&avx512::kernels, __builtin_cpu_supports("x86-64-v4") != 0},
#endif
#ifdef AMSTEL_HAS_AVX2
      {&avx2::kernels, __builtin_cpu_supports("x86-64-v3") != 0},
#endif
      {&base::kernels, true}};
  const char* wanted = std::getenv("AMSTEL_CPU_ISA");
  std::string known;
  for (const auto& [kernels, runs] : choices) {
    if (wanted ? runs && std::string(wanted) == kernels->isa : runs) return *kernels;
    if (runs) known += std::string(known.empty() ? "" : ", ") + kernels->isa;
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
