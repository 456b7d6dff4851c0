// Rotary embedding (Su et al., 2021), rotate-half convention, and where keys and values go: pair i of a head
// is its numbers i and i + dim / 2, and turns by the angle position * speeds[i], a product in fp32.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kMostHalf = 128;  // pairs of the largest head

// Block (row), a thread a pair. cosines, sines (rows x pairs). The angle is reduced in double precision: of
// thousands of turns fp32 would leave little, and the functions of fp32 need memory for angles that large.
extern "C" __global__ void __launch_bounds__(kMostHalf)
    turn_angles(const int* positions, const float* speeds, float* cosines, float* sines) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const float angle = static_cast<float>(positions[blockIdx.x]) * speeds[threadIdx.x];
  const double halves = static_cast<double>(angle) * 0.3183098861837907;  // 1 / pi: cos(pi x) has period 2
  const double reduced = halves - 2.0 * rint(0.5 * halves);
  cosines[at] = static_cast<float>(cospi(reduced));
  sines[at] = static_cast<float>(sinpi(reduced));
}

struct TurnShared {
  float room[kMostHalf / kLanes];
};

// A head as a thread sees it: numbers i and i + half, bias added, normed where there is a norm (of the dim
// numbers, as rms_norm.cuh has it).
struct HeadPair {
  float first, second;

  __device__ HeadPair(const float* head, const float* bias, int half) {
    const int i = static_cast<int>(threadIdx.x);
    first = head[i];
    second = head[i + half];
    if (bias == nullptr) return;
    first += bias[i];
    second += bias[i + half];
  }

  __device__ void norm(const float* weight, int half, float eps, TurnShared& shared) {
    const float squares = block_sum(fmaf(second, second, first * first), shared.room);
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(2 * half) + eps);
    first = first * scale * weight[threadIdx.x];
    second = second * scale * weight[threadIdx.x + half];
  }

  __device__ void turn(float cosine, float sine) {
    const float before = first;
    first = before * cosine - second * sine;
    second = second * cosine + before * sine;
  }
};

// Block (head, row): first the queries' heads, which stay in place, then the keys' and the values', which are
// rounded into slots[row] of the cache (slots x key_heads x dim), or nowhere if that is below 0. A thread a
// pair. q (rows x heads x dim), k and v (rows x key_heads x dim) as products gave them; biases (heads x dim,
// key_heads x dim) and norms (dim) are null where the model has none.
template <class Format>
__device__ void turn_heads(float* q, const float* k, const float* v, const float* q_bias, const float* k_bias,
                           const float* v_bias, const float* q_norm, const float* k_norm,
                           const float* cosines, const float* sines, const int* slots, uint16_t* keys,
                           uint16_t* values, int heads, int key_heads, float eps) {
  SPECEE_SHARED(TurnShared, shared);
  const int half = static_cast<int>(blockDim.x), i = static_cast<int>(threadIdx.x);
  const int number = static_cast<int>(blockIdx.x), dim = 2 * half;
  const bool is_query = number < heads, is_key = !is_query && number < heads + key_heads;
  const int head = is_query ? number : (number - heads) % key_heads;
  const int64_t row = blockIdx.y, at = (row * (is_query ? heads : key_heads) + head) * dim;
  const float* bias = is_query ? q_bias : is_key ? k_bias : v_bias;
  const float* norm = is_query ? q_norm : is_key ? k_norm : nullptr;
  HeadPair pair((is_query ? q : is_key ? k : v) + at, bias != nullptr ? bias + head * dim : nullptr, half);
  if (norm != nullptr) pair.norm(norm, half, eps, shared);
  if (is_query || is_key) pair.turn(cosines[row * half + i], sines[row * half + i]);
  if (is_query) {
    q[at + i] = pair.first;
    q[at + i + half] = pair.second;
    return;
  }
  if (slots[row] < 0) return;
  uint16_t* stored = (is_key ? keys : values) + (static_cast<int64_t>(slots[row]) * key_heads + head) * dim;
  stored[i] = Format::narrow(pair.first);
  stored[i + half] = Format::narrow(pair.second);
}

#define SPECEE_TURN(name, Format)                                                                            \
  extern "C" __global__ void __launch_bounds__(kMostHalf)                                                    \
      turn_heads_##name(float* q, const float* k, const float* v, const float* q_bias, const float* k_bias,  \
                        const float* v_bias, const float* q_norm, const float* k_norm, const float* cosines, \
                        const float* sines, const int* slots, uint16_t* keys, uint16_t* values, int heads,   \
                        int key_heads, float eps) {                                                          \
    turn_heads<Format>(q, k, v, q_bias, k_bias, v_bias, q_norm, k_norm, cosines, sines, slots, keys, values, \
                       heads, key_heads, eps);                                                               \
  }

SPECEE_TURN(bf16, Bf16)
SPECEE_TURN(fp16, F16)

#undef SPECEE_TURN

}  // namespace specee::cuda
