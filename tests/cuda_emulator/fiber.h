// Fibers: stacks to run on, and the switch from one to another.  On x86-64 the switch is a few
// instructions; elsewhere it is ucontext's.  AddressSanitizer is told of every switch.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#define AMSTEL_UCONTEXT
#endif
#if defined(AMSTEL_UCONTEXT)
#include <ucontext.h>
#endif

namespace cuda_emulator {

// A stack to run on, and where it stopped.  The main fiber stands for the thread that called
// launch().
struct Fiber {
  static constexpr size_t kStackBytes = 256 * 1024;  // of address space; pages come with use
  static constexpr size_t kGuardBytes = 64 * 1024;   // a multiple of any page size

#if !defined(AMSTEL_UCONTEXT)
  void* stack_pointer = nullptr;
#else
  ucontext_t context{};
#endif
  char* stack = nullptr;
  const void* stack_bottom = nullptr;  // as AddressSanitizer wants it told
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;
  bool idle = true;

  Fiber() = default;
  // Fibers begin at different depths, or all their tops would fall into the same cache sets.
  Fiber(void (*entry)(), [[maybe_unused]] size_t number) {
    stack = static_cast<char*>(mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stack == MAP_FAILED) throw std::bad_alloc();
    mprotect(stack, kGuardBytes, PROT_NONE);
    stack_bottom = stack + kGuardBytes;
    stack_bytes = kStackBytes;
#if !defined(AMSTEL_UCONTEXT)
    // What amstel_emulator_switch pops: six registers, the entry, and a return address that keeps
    // the ABI's alignment.
    void** top =
        reinterpret_cast<void**>(stack + kGuardBytes + kStackBytes - number % 64 * 1088) - 8;
    std::fill(top, top + 8, nullptr);
    top[6] = reinterpret_cast<void*>(entry);
    stack_pointer = top;
#else
    getcontext(&context);
    context.uc_stack = {.ss_sp = stack + kGuardBytes, .ss_flags = 0, .ss_size = kStackBytes};
    makecontext(&context, entry, 0);
#endif
  }
  Fiber(const Fiber&) = delete;
  // A process may have 65,530 mappings: a library that is unloaded gives its stacks back.
  ~Fiber() {
    if (stack != nullptr) munmap(stack, kStackBytes + kGuardBytes);
  }
};

#if !defined(AMSTEL_UCONTEXT)
extern "C"
    __attribute__((visibility("hidden"))) void amstel_emulator_switch(void** save, void* load);
asm(R"(
.pushsection .text.amstel_emulator_switch,"axG",@progbits,amstel_emulator_switch,comdat
.weak amstel_emulator_switch
.hidden amstel_emulator_switch
.type amstel_emulator_switch, @function
amstel_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size amstel_emulator_switch, .-amstel_emulator_switch
.popsection
)");
#endif

inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
#if !defined(AMSTEL_UCONTEXT)
  amstel_emulator_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  // Back again, and always from the fiber that was switched to; the main fiber's stack becomes
  // known this way.
  __sanitizer_finish_switch_fiber(from.fake_stack, &to.stack_bottom, &to.stack_bytes);
#endif
}

}  // namespace cuda_emulator
