// Decode attention of one row over logical positions [begin, end):
//   out = sum_p softmax_p(scale * q.k_p) v_p
// Scores are computed sixteen positions at a time (a lane is a position, one chain over head_dim each); the
// weighted sum is one chain over positions per output. Both are indexed by logical position: a tree row
// gathers its ancestors' keys in path order into the very tiles a chain would use, so its result has the
// chain's bits.
#pragma once

#include "cpu/kernels.h"

namespace {

using specee::AttendCall;

struct F32Cache {
  using Element = float;
  static inline Vec load(const float* p) { return vload(p); }
};
struct Bf16Cache {
  using Element = uint16_t;
  static inline Vec load(const uint16_t* p) { return vload_bf16(p); }
};
struct F16Cache {
  using Element = uint16_t;
  static inline Vec load(const uint16_t* p) { return vload_f16(p); }
};

inline constexpr float kMinusInfinity = -__builtin_inff();

// Scores of T consecutive tiles, unscaled: scores[g][position].
template <class Cache, int G, int T>
inline void score_tiles(const typename Cache::Element* keys, const AttendCall& call, int position) {
  constexpr int L = specee::kLanes;
  const int dim = call.head_dim;
  Vec acc[T][G];
  for (int t = 0; t < T; ++t)
    for (int g = 0; g < G; ++g) acc[t][g] = vzero();
  for (int d = 0; d < dim; ++d) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const Vec k = Cache::load(keys + (t * dim + d) * L);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) vaccumulate(acc[t][g], k, vset(call.q[g * dim + d]));
    }
  }
  for (int t = 0; t < T; ++t)
    for (int g = 0; g < G; ++g) vstore(call.scores + g * call.score_stride + position + t * L, acc[t][g]);
}

// Copies the keys of 16 logical positions from wherever they sit; lanes past the end stay zero.
template <class Cache>
inline const typename Cache::Element* gather_tile(const AttendCall& call, int position) {
  using Element = typename Cache::Element;
  constexpr int L = specee::kLanes;
  Element* tile = static_cast<Element*>(call.tile);
  const Element* keys = static_cast<const Element*>(call.keys);
  for (int lane = 0; lane < L; ++lane) {
    const int p = position + lane;
    if (p >= call.end) {
      for (int d = 0; d < call.head_dim; ++d) tile[d * L + lane] = 0;
      continue;
    }
    const int slot = p < call.identity ? p : call.path[p - call.identity];
    const Element* from = keys + static_cast<ptrdiff_t>(slot / L) * call.head_dim * L + slot % L;
    for (int d = 0; d < call.head_dim; ++d) tile[d * L + lane] = from[d * L];
  }
  return tile;
}

template <class Cache, int G>
inline void all_scores(const AttendCall& call) {
  using Element = typename Cache::Element;
  constexpr int L = specee::kLanes, T = G == 1 ? 4 : 2;
  const Element* keys = static_cast<const Element*>(call.keys);
  // Tiles that lie wholly in slots of their own number are read in place.
  const int direct = call.end <= call.identity ? call.end : call.identity / L * L;
  int p = call.begin / L * L;
  for (; p + (T - 1) * L < direct; p += T * L)
    score_tiles<Cache, G, T>(keys + static_cast<ptrdiff_t>(p) * call.head_dim, call, p);
  for (; p < direct; p += L)
    score_tiles<Cache, G, 1>(keys + static_cast<ptrdiff_t>(p) * call.head_dim, call, p);
  for (; p < call.end; p += L) score_tiles<Cache, G, 1>(gather_tile<Cache>(call, p), call, p);
}

// Turns scores into exp(scale * (score - largest)), zero outside [begin, end), and returns their sum.
inline float soften(const AttendCall& call, float* scores) {
  constexpr int L = specee::kLanes;
  const Vec scale = vset(call.scale);
  const int first = call.begin / L * L;
  Vec top = vset(kMinusInfinity);
  for (int p = first; p < call.end; p += L) {
    const Vec s = vkeep(vmul(vload(scores + p), scale), call.begin - p, call.end - p, kMinusInfinity);
    vstore(scores + p, s);
    top = vmax(top, s);
  }
  const Vec shift = vset(-vlargest(top));
  Vec sum = vzero();
  for (int p = first; p < call.end; p += L) {
    const Vec e = vkeep(vexp(vadd(vload(scores + p), shift)), call.begin - p, call.end - p, 0.0f);
    vstore(scores + p, e);
    sum = vadd(sum, e);
  }
  return vsum(sum);
}

// Weighted sum of values for D blocks of 16 dimensions, starting at dimension `dim`.
template <class Cache, int G, int D>
inline void weigh_values(const AttendCall& call, int dim, const float* sums) {
  constexpr int L = specee::kLanes;
  const typename Cache::Element* values = static_cast<const typename Cache::Element*>(call.values) + dim;
  Vec acc[G][D];
  for (int g = 0; g < G; ++g)
    for (int d = 0; d < D; ++d) acc[g][d] = vzero();
  const auto take = [&](int p, int slot) {
    const typename Cache::Element* v = values + static_cast<ptrdiff_t>(slot) * call.value_stride;
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d) {
      const Vec value = Cache::load(v + d * L);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) vaccumulate(acc[g][d], value, vset(call.scores[g * call.score_stride + p]));
    }
  };
  const int split = call.end < call.identity ? call.end : call.identity;
  int p = call.begin;
  for (; p < split; ++p) take(p, p);
  for (; p < call.end; ++p) take(p, call.path[p - call.identity]);
  for (int g = 0; g < G; ++g)
    for (int d = 0; d < D; ++d) {
      float lane[L];
      vstore(lane, vdiv(acc[g][d], vset(sums[g])));
      for (int i = 0; i < L && dim + d * L + i < call.head_dim; ++i)
        call.out[g * call.head_dim + dim + d * L + i] = lane[i];
    }
}

template <class Cache, int G>
void attend_group(const AttendCall& call) {
  constexpr int L = specee::kLanes, D = G == 1 ? 4 : 2;
  float sums[G];
  all_scores<Cache, G>(call);
  for (int g = 0; g < G; ++g) sums[g] = soften(call, call.scores + g * call.score_stride);
  int dim = 0;
  for (; dim + D * L <= call.value_stride; dim += D * L) weigh_values<Cache, G, D>(call, dim, sums);
  for (; dim < call.value_stride; dim += L) weigh_values<Cache, G, 1>(call, dim, sums);
}

template <class Cache>
void attend_dtype(const AttendCall& call) {
  if (call.heads == 1) attend_group<Cache, 1>(call);
  if (call.heads == 2) attend_group<Cache, 2>(call);
  if (call.heads == 3) attend_group<Cache, 3>(call);
}

void attend(const AttendCall& call) {
  if (call.dtype == specee::Dtype::f32) attend_dtype<F32Cache>(call);
  if (call.dtype == specee::Dtype::bf16) attend_dtype<Bf16Cache>(call);
  if (call.dtype == specee::Dtype::f16) attend_dtype<F16Cache>(call);
}

}  // namespace
