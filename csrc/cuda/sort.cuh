// A stable sort of numbers by their keys: CUB's radix sort, which is part of CUDA's toolkit, and on
// the emulator that of the standard library.
//
// A pass over 8 bits of the keys reads and writes both, and one more reads the keys to count: 4 i
// bits / 8 + i bytes an edge with indices of i bytes.  Two pairs of types are compiled, since each
// is 0.4 MB for all architectures.  Memory: as much as the pairs take, besides the result.
#pragma once

#include <algorithm>
#include <bit>
#include <type_traits>

#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"

#ifdef AMSTEL_EMULATED
#include <numeric>
#include <vector>
#elif __has_include(<cub/device/device_radix_sort.cuh>)
#include <cub/device/device_radix_sort.cuh>
#else
#error "amstel needs the headers of CUB, part of the CUDA toolkit (on PyPI: nvidia-cuda-cccl)"
#endif

namespace amstel::cuda {

// Sorts n pairs; only the bits count that keys in [0, keys) have, and equal keys keep their order.
// The inputs stay; `like` is a tensor of the device.
template <class I>
void sort_pairs([[maybe_unused]] const char* op, [[maybe_unused]] const Tensor& like,
                [[maybe_unused]] cudaStream_t stream, const I* key, I* sorted_key, const I* number,
                I* sorted_number, int64_t n, int64_t keys) {
  using Unsigned = std::make_unsigned_t<I>;
  const int bits = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(keys, 2) - 1));
#ifdef AMSTEL_EMULATED
  const Unsigned mask = static_cast<Unsigned>(~uint64_t{0} >> (64 - bits));
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return (static_cast<Unsigned>(key[a]) & mask) < (static_cast<Unsigned>(key[b]) & mask);
  });
  for (int64_t k = 0; k < n; ++k) {
    sorted_key[k] = key[order[k]];
    sorted_number[k] = number[order[k]];
  }
#else
  // Both calls ask for the same; the first, without memory, for how much it takes.
  using Count = std::conditional_t<sizeof(I) == 4, int, int64_t>;
  const auto sort = [&](void* memory, size_t& bytes) {
    const cudaError_t error = cub::DeviceRadixSort::SortPairs(
        memory, bytes, reinterpret_cast<const Unsigned*>(key),
        reinterpret_cast<Unsigned*>(sorted_key), reinterpret_cast<const Unsigned*>(number),
        reinterpret_cast<Unsigned*>(sorted_number), static_cast<Count>(n), 0, bits, stream);
    check_cuda(op, error);
  };
  size_t bytes = 0;
  sort(nullptr, bytes);
  const Tensor memory = empty(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
  sort(memory.mutable_data_ptr(), bytes);
#endif
}

}  // namespace amstel::cuda
