// Chooses the CPU kernels: the widest instruction set that this machine runs, or AMSTEL_CPU_ISA.
#include "cpu/isa.h"

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "common/check.h"
#include "cpu/isas.h"

namespace amstel {
namespace cpu {
namespace {

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
