// Theoretical occupancy from CUDA's own cuda_occupancy.h.  Argument: the architecture (80, 90,
// 100).  Standard input: lines "threads registers shared_bytes" of a kernel.  Standard output: the
// share of a multiprocessor's warps that fit at once.
#include <cstdlib>
#include <iostream>

// What cuda_occupancy.h asks of <driver_types.h>.
#include <cuda_occupancy.h>

namespace {

// Limits of a multiprocessor, from the CUDA programming guide's table of compute capabilities.
cudaOccDeviceProp device(int architecture) {
  cudaOccDeviceProp properties{};
  properties.computeMajor = architecture / 10;
  properties.computeMinor = architecture % 10;
  properties.maxThreadsPerBlock = 1024;
  properties.maxThreadsPerMultiprocessor = 2048;
  properties.regsPerBlock = properties.regsPerMultiprocessor = 65536;
  properties.warpSize = 32;
  const int shared_kib = architecture == 80 ? 164 : 228;
  properties.sharedMemPerBlock = 48 << 10;
  properties.sharedMemPerMultiprocessor = static_cast<size_t>(shared_kib) << 10;
  properties.sharedMemPerBlockOptin = static_cast<size_t>(shared_kib - 1) << 10;
  properties.reservedSharedMemPerBlock = 1 << 10;
  properties.numSms = 1;
  return properties;
}

}  // namespace

int main(int, char** arguments) {
  const cudaOccDeviceProp properties = device(std::atoi(arguments[1]));
  const cudaOccDeviceState state{};
  int threads, registers;
  size_t shared_bytes;
  while (std::cin >> threads >> registers >> shared_bytes) {
    cudaOccFuncAttributes kernel{};
    kernel.maxThreadsPerBlock = threads;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = shared_bytes;
    kernel.maxDynamicSharedSizeBytes = 48 << 10;
    cudaOccResult result{};
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &properties, &kernel, &state, threads,
                                                0) != CUDA_OCC_SUCCESS) {
      return 1;
    }
    const int warps = result.activeBlocksPerMultiprocessor * ((threads + 31) / 32);
    std::cout << warps * 32.0 / properties.maxThreadsPerMultiprocessor << "\n";
  }
}
