// SwiGLU (Shazeer, 2020), rounded or quantised for the product that takes it: y = g / (1 + exp(-g)) * u with
// g = gate + gate_bias, u = up + up_bias. Without `up`, u is 1; without biases, they are 0.
#pragma once

#include "activations.cuh"

namespace specee::cuda {

struct Gated {
  const float *gate, *up, *gate_bias, *up_bias;
  int width;

  __device__ float operator()(int64_t i) const {
    const int column = static_cast<int>(i % width);
    float g = gate[i], u = up != nullptr ? up[i] : 1.0f;
    if (gate_bias != nullptr) g += gate_bias[column];
    if (up_bias != nullptr) u += up_bias[column];
    return g / (1.0f + expf(-g)) * u;
  }
};

// gate, up, out (rows x width), count = rows * width; biases (width).
extern "C" __global__ void __launch_bounds__(kRoundThreads)
    swiglu_bf16(const float* gate, const float* up, const float* gate_bias, const float* up_bias,
                uint16_t* out, int count, int width) {
  const int i = static_cast<int>(blockIdx.x * kRoundThreads + threadIdx.x);
  if (i < count) out[i] = Bf16::narrow(Gated{gate, up, gate_bias, up_bias, width}(i));
}

// The same in blocks of 32, a warp each; 32 divides width.
extern "C" __global__ void __launch_bounds__(kQuantiseThreads)
    swiglu_int8(const float* gate, const float* up, const float* gate_bias, const float* up_bias, int8_t* q,
                float* scales, float* sums, int blocks, int width) {
  const int block = warp_block();
  if (block >= blocks) return;  // whole warps
  const int64_t i = static_cast<int64_t>(block) * kLanes + threadIdx.x % kLanes;
  quantise_block(Gated{gate, up, gate_bias, up_bias, width}(i), block, q, scales, sums);
}

}  // namespace specee::cuda
