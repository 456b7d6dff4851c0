// Kernels for random programs: numbers that are reckoned with, and flags that decide what runs.
#pragma once

namespace toys {

extern "C" __global__ void __launch_bounds__(32) toy_mix(int* numbers, int at, int amount) {
  if (threadIdx.x == 0) numbers[at] = (numbers[at] * 3 + amount) % 10007;
}

extern "C" __global__ void __launch_bounds__(32)
    toy_compare(const int* numbers, int at, int* flags, int flag, int modulus, float limit) {
  if (threadIdx.x == 0) flags[flag] = static_cast<float>(numbers[at] % modulus) < limit ? 1 : 0;
}

extern "C" __global__ void __launch_bounds__(32) toy_store(int* flags, int flag, int64_t value) {
  if (threadIdx.x == 0) flags[flag] = static_cast<int>(value);
}

extern "C" __global__ void __launch_bounds__(32) toy_count_down(int* flags, int flag) {
  if (threadIdx.x == 0) --flags[flag];
}

}  // namespace toys
