// Decode attention by logical position. Row r attends to positions begins[r] to ends[r], and slots[r][p] says
// where position p is in the cache: for a row of a token tree its ancestors, in path order. Splits are fixed
// ranges of positions, so an accepted branch has the very bits of plain decoding. Slots of other positions
// are never read.
//
// First attention_*: scores and weighted values of one split; then attention_combine: splits in order.
#pragma once

#include "numbers.cuh"

namespace specee::cuda {

inline constexpr int kAttentionThreads = 128;
inline constexpr int kValueHeads = 4;  // heads that share a pass over values
inline constexpr int kAhead = 4;       // positions that a thread asks for at once

template <int kDim>
struct AttentionShared {
  // A position's key or value is read by kReaders lanes, 8 numbers each; kPositions positions at once.
  static constexpr int kReaders = kDim / 8;
  static constexpr int kPositions = kAttentionThreads / kReaders;
  float queries[kAttentionHeads][kDim];
  float weights[kAttentionHeads][kAttentionSplit];  // scores, then their exponentials; 0 for masked positions
  float sums[kPositions][kValueHeads][kDim];
};

// What one block does: row, the split's positions that it attends to, and its heads.
struct AttentionTask {
  const int* slots;       // of the row, by position
  int first, begin, end;  // of the split; [begin, end) within it
  int key_head, heads;
  int64_t slot_size, head_offset;  // in numbers

  __device__ bool attended(int local) const { return first + local >= begin && first + local < end; }
};

// A reader's numbers of kAhead positions, from `local` on: all are asked for before the first is used. Zeros
// where masked.
template <int kDim>
__device__ void fetch_positions(const AttentionTask& task, const uint16_t* __restrict__ from, int local,
                                uint4 (&chunks)[kAhead]) {
  using Shared = AttentionShared<kDim>;
  const int reader = static_cast<int>(threadIdx.x) % Shared::kReaders;
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int there = local + i * Shared::kPositions;
    chunks[i] = {0, 0, 0, 0};
    if (!task.attended(there)) continue;
    const int64_t slot = task.slots[task.first + there];
    chunks[i] = *reinterpret_cast<const uint4*>(from + slot * task.slot_size + task.head_offset + reader * 8);
  }
}

template <class Format, int kDim>
__device__ void attention_scores(const AttentionTask& task, const uint16_t* __restrict__ keys, float scale,
                                 AttentionShared<kDim>& shared) {
  using Shared = AttentionShared<kDim>;
  const int thread = static_cast<int>(threadIdx.x), reader = thread % Shared::kReaders;
  constexpr int kStep = kAhead * Shared::kPositions;
  for (int begin = thread / Shared::kReaders; begin < kAttentionSplit; begin += kStep) {
    uint4 chunks[kAhead];
    fetch_positions<kDim>(task, keys, begin, chunks);
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int local = begin + ahead * Shared::kPositions;
      float key[8];
      widen_chunk<Format>(chunks[ahead], key);
      for (int head = 0; head < task.heads; ++head) {
        float sum = 0.0f;
        for (int i = 0; i < 8; ++i) sum = fmaf(shared.queries[head][reader * 8 + i], key[i], sum);
        sum = lanes_sum(sum, Shared::kReaders);
        if (reader == 0) shared.weights[head][local] = task.attended(local) ? sum * scale : -infinity();
      }
    }
  }
}

// Exponentials in place; the largest score and the sum of each head to maxima[head * stride], sums[head *
// stride].
template <int kDim>
__device__ void attention_weights(const AttentionTask& task, float* maxima, float* sums, int stride,
                                  AttentionShared<kDim>& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  for (int head = warp; head < task.heads; head += kAttentionThreads / kLanes) {
    float* weights = shared.weights[head];
    float largest = -infinity();
    for (int local = lane; local < kAttentionSplit; local += kLanes) largest = fmaxf(largest, weights[local]);
    largest = lanes_max(largest);
    float sum = 0.0f;
    for (int local = lane; local < kAttentionSplit; local += kLanes) {
      weights[local] = task.attended(local) ? expf(weights[local] - largest) : 0.0f;
      sum += weights[local];
    }
    sum = lanes_sum(sum);
    if (lane == 0) {
      maxima[head * stride] = largest;
      sums[head * stride] = sum;
    }
  }
}

// partial[(head * stride) * kDim + d] = sum of weight times value, for the heads from `head` on.
template <class Format, int kDim>
__device__ void attention_values(const AttentionTask& task, const uint16_t* __restrict__ values, int head,
                                 float* partial, int stride, AttentionShared<kDim>& shared) {
  using Shared = AttentionShared<kDim>;
  const int thread = static_cast<int>(threadIdx.x), reader = thread % Shared::kReaders;
  const int group = thread / Shared::kReaders;
  float sums[kValueHeads][8] = {};
  for (int begin = group; begin < kAttentionSplit; begin += kAhead * Shared::kPositions) {
    uint4 chunks[kAhead];
    fetch_positions<kDim>(task, values, begin, chunks);
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      float value[8];
      widen_chunk<Format>(chunks[ahead], value);
#pragma unroll
      for (int h = 0; h < kValueHeads; ++h) {
        if (head + h >= task.heads) break;
        // A masked position adds an exact zero: 0 times the 0 that was fetched for it.
        const float weight = shared.weights[head + h][begin + ahead * Shared::kPositions];
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[h][i] = fmaf(weight, value[i], sums[h][i]);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < kValueHeads; ++h)
#pragma unroll
    for (int i = 0; i < 8; ++i) shared.sums[group][h][reader * 8 + i] = sums[h][i];
  __syncthreads();
  for (int i = thread; i < kValueHeads * kDim; i += kAttentionThreads) {
    const int h = i / kDim, d = i % kDim;
    if (head + h >= task.heads) break;
    float sum = 0.0f;
    for (int g = 0; g < Shared::kPositions; ++g) sum += shared.sums[g][h][d];
    partial[static_cast<int64_t>(head + h) * stride * kDim + d] = sum;
  }
  __syncthreads();
}

// Block (split, key head and part of its query heads, row). queries (rows x heads x dim); keys, values (slots
// x key_heads x dim); slots (rows x table); partial (rows x heads x splits x dim); maxima, sums (rows x heads
// x splits).
template <class Format, int kDim>
__device__ void attention(const float* queries, const uint16_t* keys, const uint16_t* values,
                          const int* slots, const int* begins, const int* ends, float* partial, float* maxima,
                          float* sums, int heads, int key_heads, int table, int splits, float scale) {
  SPECEE_SHARED(AttentionShared<kDim>, shared);
  const int split = static_cast<int>(blockIdx.x), row = static_cast<int>(blockIdx.z);
  const int begin = begins != nullptr ? begins[row] : 0, end = ends[row];
  if (!attends(split, begin, end)) return;
  const int shared_heads = heads / key_heads, parts = ceil_div(shared_heads, kAttentionHeads);
  const int key_head = static_cast<int>(blockIdx.y) / parts;
  const int skipped = static_cast<int>(blockIdx.y) % parts * kAttentionHeads, left = shared_heads - skipped;
  const int first_head = key_head * shared_heads + skipped;
  const AttentionTask task = {slots + static_cast<int64_t>(row) * table,
                              split * kAttentionSplit,
                              begin,
                              end,
                              key_head,
                              left < kAttentionHeads ? left : kAttentionHeads,
                              static_cast<int64_t>(key_heads) * kDim,
                              static_cast<int64_t>(key_head) * kDim};
  const int64_t row_head = static_cast<int64_t>(row) * heads + first_head;
  for (int i = static_cast<int>(threadIdx.x); i < task.heads * kDim; i += kAttentionThreads)
    shared.queries[i / kDim][i % kDim] = queries[row_head * kDim + i];
  __syncthreads();
  attention_scores<Format, kDim>(task, keys, scale, shared);
  __syncthreads();
  attention_weights<kDim>(task, maxima + row_head * splits + split, sums + row_head * splits + split, splits,
                          shared);
  __syncthreads();
  for (int head = 0; head < task.heads; head += kValueHeads)
    attention_values<Format, kDim>(task, values, head, partial + (row_head * splits + split) * kDim, splits,
                                   shared);
}

// Block (head, row), a thread a dimension. out (rows x heads x dim).
extern "C" __global__ void __launch_bounds__(256)
    attention_combine(const float* partial, const float* maxima, const float* sums, const int* begins,
                      const int* ends, float* out, int splits) {
  const int row = static_cast<int>(blockIdx.y), d = static_cast<int>(threadIdx.x);
  const int dim = static_cast<int>(blockDim.x);
  const int64_t head = static_cast<int64_t>(row) * gridDim.x + blockIdx.x;
  const int begin = begins != nullptr ? begins[row] : 0, end = ends[row];
  const int first = begin / kAttentionSplit, last = attention_splits(end);
  float largest = -infinity(), total = 0.0f, sum = 0.0f;
  for (int split = first; split < last; ++split) largest = fmaxf(largest, maxima[head * splits + split]);
  for (int split = first; split < last; ++split) {
    const float weight = expf(maxima[head * splits + split] - largest);
    total = fmaf(weight, sums[head * splits + split], total);
    sum = fmaf(weight, partial[(head * splits + split) * dim + d], sum);
  }
  out[head * dim + d] = sum / total;
}

// Four blocks a multiprocessor at least: left to itself, ptxas spills registers to have more.
#define SPECEE_ATTENTION(name, Format, dim)                                                          \
  extern "C" __global__ void __launch_bounds__(kAttentionThreads, 4) attention_##name##_##dim(       \
      const float* queries, const uint16_t* keys, const uint16_t* values, const int* slots,          \
      const int* begins, const int* ends, float* partial, float* maxima, float* sums, int heads,     \
      int key_heads, int table, int splits, float scale) {                                           \
    attention<Format, dim>(queries, keys, values, slots, begins, ends, partial, maxima, sums, heads, \
                           key_heads, table, splits, scale);                                         \
  }

SPECEE_ATTENTION(bf16, Bf16, 64)
SPECEE_ATTENTION(bf16, Bf16, 128)
SPECEE_ATTENTION(bf16, Bf16, 256)
SPECEE_ATTENTION(fp16, F16, 64)
SPECEE_ATTENTION(fp16, F16, 128)
SPECEE_ATTENTION(fp16, F16, 256)

#undef SPECEE_ATTENTION

}  // namespace specee::cuda
