// Huge pages for large results, and from where on they leave the caches.
#pragma once
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "common/check.h"

namespace amstel::cpu {

// Of a result of so many bytes little is left in the caches of a core when it is read again.
constexpr int64_t kAllCaches = int64_t{1} << 24;

// Whether rows of so many numbers go past the caches (vector.h): they are larger than those, and
// every vector begins where one may.
inline bool outgrows_caches(const Tensor& t, int64_t numbers) {
  const auto size = static_cast<int64_t>(t.element_size());
  return t.numel() * size >= kAllCaches && numbers * size % 64 == 0 &&
         reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 64 == 0;
}

// From 32 MB on malloc maps fresh pages at every call, and faulting them in one by one costs more
// than the product; below, it reuses its heap, where huge pages would only cost. A hint: nothing
// else changes where it is refused.
inline void want_huge_pages([[maybe_unused]] const Tensor& t) {
#ifdef __linux__
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  const auto bytes = static_cast<uintptr_t>(t.numel()) * t.element_size();
  if (bytes < 16 * kHuge) return;
  const auto first =
      (reinterpret_cast<uintptr_t>(t.mutable_data_ptr()) + kHuge - 1) / kHuge * kHuge;
  madvise(reinterpret_cast<void*>(first), (bytes - kHuge) / kHuge * kHuge, MADV_HUGEPAGE);
#endif
}

}  // namespace amstel::cpu
