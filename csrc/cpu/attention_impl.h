// Attention of one row over logical positions [begin, end):
//   out = sum_p softmax_p(scale * q.k_p) v_p
// Scores are computed sixteen positions at a time (a lane is a position, one chain over head_dim each); the
// weighted sum is one chain over positions per output. Both are indexed by logical position: a tree row
// gathers its ancestors' keys in path order into the very tiles a chain would use, so its result has the
// chain's bits.
#pragma once

#include "cpu/fetch_impl.h"
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

// Tiles of keys, or blocks of sixteen dimensions of values, that G heads take together.
inline constexpr int attention_tiles(int heads) {
  const int room = kAttentionAccumulators / heads;
  return room >= 4 ? 4 : room >= 2 ? 2 : 1;
}

inline constexpr int kRowsAhead = 24;  // rows of values between the one in use and the one being fetched

// What keys or values are multiplied with: a number of each head, spread over lanes. Once for all tiles,
// since spreading is a load and loads would bind; but anew for each where registers are few, and three heads
// would take those of accumulators. One that is spilled is a chain through memory, at twice the time.
template <int G>
class HeadFactors {
 public:
  HeadFactors(const float* first, ptrdiff_t stride) : at_(first), stride_(stride) {
    if constexpr (!kFewRegisters)
      for (int g = 0; g < G; ++g) spread_[g] = vspread(first[g * stride]);
  }
  Vec of(int g) const {
    if constexpr (kFewRegisters) return vset(at_[g * stride_]);
    return spread_[g];
  }
  void next_tile() {
    if constexpr (kFewRegisters && G > 2) __asm__("" : "+r"(at_));
  }

 private:
  const float* at_;
  ptrdiff_t stride_;
  Vec spread_[kFewRegisters ? 1 : G];
};

template <int Count>
struct Heads {
  static constexpr int kCount = Count;
};

inline constexpr float kMinusInfinity = -__builtin_inff();

// Scores of T consecutive tiles, unscaled: scores[g][position]. As many bytes are fetched from `ahead` on.
template <class Cache, int G, int T>
inline void score_tiles(const typename Cache::Element* keys, const void* ahead, const AttendCall& call,
                        int position, LoopFetch& fetch) {
  constexpr int L = specee::kLanes;
  const int dim = call.head_dim;
  Vec acc[T][G];
  for (int t = 0; t < T; ++t)
    for (int g = 0; g < G; ++g) acc[t][g] = vzero();
  constexpr ptrdiff_t step_bytes = T * L * sizeof(typename Cache::Element);
  for (int d = 0; d < dim; ++d) {
    fetch.step();
    for (ptrdiff_t i = 0; i < step_bytes; i += kLine)
      __builtin_prefetch(static_cast<const char*>(ahead) + d * step_bytes + i, 0, 2);
    HeadFactors<G> q(call.q + d, dim);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const Vec k = Cache::load(keys + (t * dim + d) * L);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) vaccumulate(acc[t][g], k, q.of(g));
      if constexpr (T > 1) q.next_tile();
    }
  }
  for (int t = 0; t < T; ++t)
    for (int g = 0; g < G; ++g) vstore(call.weights + g * call.score_stride + position + t * L, acc[t][g]);
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

// While a group of tiles is in use, the one behind it is fetched; behind the last one, the first rows of
// values.
template <class Cache, int G>
void scores_of(const AttendCall& call, int from, int to) {
  using Element = typename Cache::Element;
  constexpr int L = specee::kLanes, T = attention_tiles(G);
  const Element* keys = static_cast<const Element*>(call.keys);
  const ptrdiff_t tile = static_cast<ptrdiff_t>(L) * call.head_dim;
  // Tiles that lie wholly in slots of their own number are read in place.
  const int direct = call.end <= call.identity ? call.end : call.identity / L * L;
  const int end = to < call.end ? to : call.end, in_place = end < direct ? end : direct;
  LoopFetch fetch(call.stream);
  int p = (from > call.begin ? from : call.begin) / L * L;
  for (; p + (T - 1) * L < in_place; p += T * L) {
    const Element* at = keys + p / L * tile;
    const void* values =
        static_cast<const Element*>(call.values) + static_cast<ptrdiff_t>(call.begin) * call.value_stride;
    score_tiles<Cache, G, T>(at, p + T * L < direct ? at + T * tile : values, call, p, fetch);
  }
  for (; p < in_place; p += L) {
    const Element* at = keys + p / L * tile;
    score_tiles<Cache, G, 1>(at, p + L < direct ? at + tile : at, call, p, fetch);
  }
  for (; p < end; p += L) {
    const Element* at = gather_tile<Cache>(call, p);
    score_tiles<Cache, G, 1>(at, at, call, p, fetch);
  }
  fetch.done();
}

// Weights of one head, zero outside [begin, end) up to whole vectors; returns their sum.
inline float soften(const AttendCall& call, const float* scores, float* weights) {
  constexpr int L = specee::kLanes;
  const Vec scale = vset(call.scale);
  const int first = call.begin / L * L;
  Vec top = vset(kMinusInfinity);
  for (int p = first; p < call.end; p += L) {
    const Vec s = vkeep(vmul(vload(scores + p), scale), call.begin - p, call.end - p, kMinusInfinity);
    vstore(weights + p, s);
    top = vmax(top, s);
  }
  const Vec shift = vset(-vlargest(top));
  Vec sum = vzero();
  for (int p = first; p < call.end; p += L) {
    const Vec e = vkeep(vexp(vadd(vload(weights + p), shift)), call.begin - p, call.end - p, 0.0f);
    vstore(weights + p, e);
    sum = vadd(sum, e);
  }
  return vsum(sum);
}

void attend_weights(const AttendCall& call) {
  for (int g = 0; g < call.heads; ++g) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(g) * call.score_stride;
    call.sums[g] = soften(call, call.scores + at, call.weights + at);
  }
}

// One position's part of the sums. Not a lambda, and every loop over `acc` is unrolled, here and below: else
// the compiler leaves it in memory, and each sum is a chain through there.
template <class Cache, int G, int D>
inline void weigh(const typename Cache::Element* v, const float* weights, ptrdiff_t stride, uintptr_t ahead,
                  Vec (&acc)[G][D]) {
  constexpr int L = specee::kLanes;
  constexpr uintptr_t bytes = D * L * sizeof(typename Cache::Element);
  for (uintptr_t i = 0; i < bytes; i += kLine)
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(v) + ahead + i), 0, 2);
  HeadFactors<G> factors(weights, stride);
#pragma GCC unroll 4
  for (int d = 0; d < D; ++d) {
    const Vec value = Cache::load(v + d * L);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) vaccumulate(acc[g][d], value, factors.of(g));
    if constexpr (D > 1) factors.next_tile();
  }
}

// The sums go on in `so_far`, or are divided and written, when the last position is among them.
template <int G, int D>
inline void leave_sums(const AttendCall& call, bool last, int dim, const Vec (&acc)[G][D]) {
  constexpr int L = specee::kLanes;
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d) {
      if (!last) {
        vstore(call.sum_so_far + g * call.value_stride + dim + d * L, acc[g][d]);
        continue;
      }
      const Vec result = vdiv(acc[g][d], vset(call.sums[g]));
      float* out = call.out + g * call.head_dim + dim + d * L;
      if (dim + (d + 1) * L <= call.head_dim) {
        vstore(out, result);
        continue;
      }
      float lane[L];
      vstore(lane, result);
      for (int i = 0; dim + d * L + i < call.head_dim; ++i) out[i] = lane[i];
    }
}

// D blocks of 16 dimensions, starting at dimension `dim`, of positions [from, to) within the call's.
template <class Cache, int G, int D>
inline void weigh_values(const AttendCall& call, int from, int to, int dim, LoopFetch& fetch) {
  constexpr int L = specee::kLanes;
  using Element = typename Cache::Element;
  const Element* values = static_cast<const Element*>(call.values) + dim;
  const ptrdiff_t row = call.value_stride, stride = call.score_stride;
  const uintptr_t ahead = static_cast<uintptr_t>(kRowsAhead * row) * sizeof(Element);
  LoopFetch own = fetch;
  Vec acc[G][D];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d)
      acc[g][d] = from <= call.begin ? vzero() : vload(call.sum_so_far + g * call.value_stride + dim + d * L);
  const int end = to < call.end ? to : call.end, split = end < call.identity ? end : call.identity;
  int p = from > call.begin ? from : call.begin;
  const Element* v = values + p * row;
  for (; p < split; ++p, v += row) {
    own.step();
    weigh<Cache, G, D>(v, call.weights + p, stride, p + kRowsAhead < call.end ? ahead : 0, acc);
  }
  for (; p < end; ++p) {  // few
    own.step();
    weigh<Cache, G, D>(values + call.path[p - call.identity] * row, call.weights + p, stride, 0, acc);
  }
  leave_sums<G, D>(call, to >= call.end, dim, acc);
  fetch = own;
}

template <class Cache, int G>
void values_of(const AttendCall& call, int from, int to, int dim_begin, int dim_end) {
  constexpr int L = specee::kLanes, D = attention_tiles(G);
  LoopFetch fetch(call.stream);
  int dim = dim_begin;
  for (; dim + D * L <= dim_end; dim += D * L) weigh_values<Cache, G, D>(call, from, to, dim, fetch);
  for (; dim < dim_end; dim += L) weigh_values<Cache, G, 1>(call, from, to, dim, fetch);
  fetch.done();
}

// Calls f with the format of the cache, and the number of heads as a constant.
template <class Cache, class Function>
inline void with_heads(const AttendCall& call, const Function& f) {
  if (call.heads == 1) f(Cache(), Heads<1>());
  if (call.heads == 2) f(Cache(), Heads<2>());
  if (call.heads == 3) f(Cache(), Heads<3>());
}

template <class Function>
inline void with_cache(const AttendCall& call, const Function& f) {
  if (call.dtype == specee::Dtype::f32) with_heads<F32Cache>(call, f);
  if (call.dtype == specee::Dtype::bf16) with_heads<Bf16Cache>(call, f);
  if (call.dtype == specee::Dtype::f16) with_heads<F16Cache>(call, f);
}

void attend_scores(const AttendCall& call, int from, int to) {
  with_cache(call, [&](auto cache, auto heads) {
    scores_of<decltype(cache), decltype(heads)::kCount>(call, from, to);
  });
}

void attend_values(const AttendCall& call, int from, int to, int dim_begin, int dim_end) {
  with_cache(call, [&](auto cache, auto heads) {
    values_of<decltype(cache), decltype(heads)::kCount>(call, from, to, dim_begin, dim_end);
  });
}

}  // namespace
