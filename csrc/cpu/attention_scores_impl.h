// Scores of attention: sixteen positions at a time (a lane is a position, one chain over head_dim each).
#pragma once

#include "cpu/attention_rows_impl.h"

namespace {

// Scores of T consecutive tiles by R rows of H heads, unscaled: weights[head][position]. As many bytes are
// fetched from `ahead` on.
template <class Cache, int R, int H, int T>
inline void score_tiles(const typename Cache::Element* keys, const void* ahead, const AttendCall* calls,
                        int position, LoopFetch& fetch) {
  constexpr int L = specee::kLanes;
  const int dim = calls->head_dim;
  LoopFetch own = fetch;
  const float* q[R];
  for (int r = 0; r < R; ++r) q[r] = calls[r].q;
  Vec acc[T][R * H];
  for (int t = 0; t < T; ++t)
    for (int g = 0; g < R * H; ++g) acc[t][g] = vzero();
  constexpr ptrdiff_t step_bytes = T * L * sizeof(typename Cache::Element);
  for (int d = 0; d < dim; ++d) {
    own.step();
    for (ptrdiff_t i = 0; i < step_bytes; i += kLine)
      __builtin_prefetch(static_cast<const char*>(ahead) + d * step_bytes + i, 0, 2);
    HeadFactors<R, H> factors(q, d, dim);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const Vec k = Cache::load(keys + (t * dim + d) * L);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int g = 0; g < H; ++g) vaccumulate(acc[t][r * H + g], k, factors.of(r, g));
      if constexpr (T > 1) factors.next_tile();
    }
  }
  for (int t = 0; t < T; ++t)
    for (int r = 0; r < R; ++r)
      for (int g = 0; g < H; ++g)
        vstore(calls[r].weights + g * calls[r].score_stride + position + t * L, acc[t][r * H + g]);
  fetch = own;
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

// The first tile that has any of the positions from `from` on.
inline int first_tile(const AttendCall& call, int from) {
  return (from > call.begin ? from : call.begin) / specee::kLanes * specee::kLanes;
}

// Tiles that begin before here lie wholly in slots of their own number, and are read in place.
inline int direct_end(const AttendCall& call) {
  return call.end <= call.identity ? call.end : call.identity / specee::kLanes * specee::kLanes;
}

// All tiles of [p, end), which are in place for every row; returns where the next one begins. While a group
// of tiles is in use, the one behind it is fetched; behind the last one, the first rows of values.
template <class Cache, int R, int H>
inline int scores_in_place(const AttendCall* calls, int p, int end, LoopFetch& fetch) {
  using Element = typename Cache::Element;
  constexpr int L = specee::kLanes, T = attention_tiles(R * H);
  const AttendCall& call = *calls;
  const Element* keys = static_cast<const Element*>(call.keys);
  const ptrdiff_t tile = static_cast<ptrdiff_t>(L) * call.head_dim;
  const int direct = direct_end(call);
  for (; p + (T - 1) * L < end; p += T * L) {
    const Element* at = keys + p / L * tile;
    const void* values =
        static_cast<const Element*>(call.values) + static_cast<ptrdiff_t>(call.begin) * call.value_stride;
    score_tiles<Cache, R, H, T>(at, p + T * L < direct ? at + T * tile : values, calls, p, fetch);
  }
  for (; p < end; p += L) {
    const Element* at = keys + p / L * tile;
    score_tiles<Cache, R, H, 1>(at, p + L < direct ? at + tile : at, calls, p, fetch);
  }
  return p;
}

// Of one row, [from, to) within what it attends to.
template <class Cache, int H>
void row_scores(const AttendCall& call, int from, int to) {
  constexpr int L = specee::kLanes;
  const int direct = direct_end(call), end = to < call.end ? to : call.end;
  LoopFetch fetch(call.stream, 1);
  int p = scores_in_place<Cache, 1, H>(&call, first_tile(call, from), end < direct ? end : direct, fetch);
  for (; p < end; p += L) {
    const typename Cache::Element* at = gather_tile<Cache>(call, p);
    score_tiles<Cache, 1, H, 1>(at, at, &call, p, fetch);
  }
  fetch.done();
}

// Of R rows: together where all attend to keys in place, before and behind that one by one.
template <class Cache, int R, int H>
void group_scores(const AttendCall* calls, int from, int to) {
  int begin = 0, end = to;
  for (int r = 0; r < R; ++r) {
    const int first = first_tile(calls[r], from), direct = direct_end(calls[r]);
    begin = begin > first ? begin : first;
    end = end < direct ? end : direct;
  }
  int rest = from;
  if (R > 1 && begin < end) {
    for (int r = 0; r < R; ++r)
      if (first_tile(calls[r], from) < begin) row_scores<Cache, H>(calls[r], from, begin);
    LoopFetch fetch(calls->stream, R);
    rest = scores_in_place<Cache, R, H>(calls, begin, end, fetch);
    fetch.done();
  }
  for (int r = 0; r < R; ++r) row_scores<Cache, H>(calls[r], rest, to);
}

void attend_scores(const AttendCall* calls, int count, int from, int to) {
  with_cache(*calls, [&](auto cache, auto heads) {
    constexpr int H = decltype(heads)::value;
    by_rows<attention_rows(H)>(calls, count, [&](const AttendCall* some, auto rows) {
      group_scores<decltype(cache), decltype(rows)::value, H>(some, from, to);
    });
  });
}

}  // namespace
