// Preloaded before libamstel.so by .ci/sanitize: threads that a sanitizer can follow in the place
// of torch's, whose OpenMP it cannot, as many as AMSTEL_THREADS says; and faults that it must find.
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

extern "C" {

int32_t torch_get_num_threads(uint32_t* out) {
  const char* const threads = std::getenv("AMSTEL_THREADS");
  *out = threads ? static_cast<uint32_t>(std::atoi(threads)) : 4;
  return 0;
}

int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t /*grain*/,
                           void (*f)(int64_t, int64_t, void*), void* context) {
  uint32_t threads;
  torch_get_num_threads(&threads);
  std::vector<std::thread> running;
  for (uint32_t t = 0; t < threads; ++t) {
    const int64_t first = begin + (end - begin) * t / threads;
    const int64_t last = begin + (end - begin) * (t + 1) / threads;
    if (first < last) running.emplace_back([=] { f(first, last, context); });
  }
  for (std::thread& thread : running) thread.join();
  return 0;
}

void amstel_planted_race() {
  int value = 0;
  const auto add = [](int64_t, int64_t, void* sum) {
    auto& count = *static_cast<volatile int*>(sum);
    count = count + 1;
  };
  torch_parallel_for(0, 4, 1, add, &value);
}

int amstel_planted_overflow() {
  std::vector<int> numbers(4);
  volatile int* const beyond = numbers.data() + 4;
  return *beyond;
}

}  // extern "C"
