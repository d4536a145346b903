// Errors of libtorch with their text, under every release from the floor on. CMake includes this
// header before everything else (cmake/torch.cmake): the stable headers then use the macros below.
//
// The text of an error is in the stable ABI from 2.13 on, which is past the floor: it is looked for
// at run time. The macros of the newer headers do so too, but write it to stderr as well, though
// the caller may catch the error.
#pragma once
#include <dlfcn.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/shim_utils.h>

#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

namespace amstel {

// No memory for a result or for room to work in. A MemoryError in Python, which
// python/amstel/_library.py makes a torch.OutOfMemoryError; that class itself is not in the stable
// ABI.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// Of the error that a call into libtorch has just returned; empty where this torch keeps none.
inline std::string_view torch_error_text() {
  using Text = const char* (*)();
  // libtorch_cpu is among the libraries that this one needs, so the default order comes by it.
  static const auto text =
      reinterpret_cast<Text>(dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  const char* const what = text ? text() : nullptr;
  return what ? what : "";
}

[[noreturn]] __attribute__((noinline, cold)) inline void throw_torch_error(const char* call) {
  const std::string_view text = torch_error_text();
  for (const char* const sign : {"out of memory", "can't allocate memory", "not enough memory"})
    if (text.find(sign) != text.npos) throw OutOfMemory(std::string(text));
  if (!text.empty()) throw std::runtime_error(std::string(text));
  throw std::runtime_error(std::string(call) + " failed; torch wrote the reason to stderr");
}

}  // namespace amstel

#undef TORCH_ERROR_CODE_CHECK
#undef STABLE_TORCH_ERROR_CODE_CHECK
#define TORCH_ERROR_CODE_CHECK(call)    \
  if ((call) != TORCH_SUCCESS) {        \
    ::amstel::throw_torch_error(#call); \
  }
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
