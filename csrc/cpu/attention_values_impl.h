// Weighted sums of attention: one chain over positions per output.
#pragma once

#include "cpu/attention_rows_impl.h"

namespace {

inline constexpr int kRowsAhead = 24;  // rows of values between the one in use and the one being fetched

// One position's part of the sums. Not a lambda, and every loop over `acc` is unrolled, here and below: else
// the compiler leaves it in memory, and each sum is a chain through there.
template <class Cache, int R, int H, int D>
inline void weigh(const typename Cache::Element* v, const float* const (&weights)[R], ptrdiff_t position,
                  ptrdiff_t stride, uintptr_t ahead, Vec (&acc)[R * H][D]) {
  constexpr int L = specee::kLanes;
  constexpr uintptr_t bytes = D * L * sizeof(typename Cache::Element);
  for (uintptr_t i = 0; i < bytes; i += kLine)
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(v) + ahead + i), 0, 2);
  HeadFactors<R, H> factors(weights, position, stride);
#pragma GCC unroll 4
  for (int d = 0; d < D; ++d) {
    const Vec value = Cache::load(v + d * L);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int g = 0; g < H; ++g) vaccumulate(acc[r * H + g][d], value, factors.of(r, g));
    if constexpr (D > 1) factors.next_tile();
  }
}

// Row r's sums, as far as they have come before position `from`.
template <int H, int D>
inline void begin_sums(const AttendCall& call, int from, int dim, Vec (*acc)[D]) {
#pragma GCC unroll 4
  for (int g = 0; g < H; ++g)
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d)
      acc[g][d] = from <= call.begin
                      ? vzero()
                      : vload(call.sum_so_far + g * call.value_stride + dim + d * specee::kLanes);
}

// They go on in `so_far`, or are divided and written, when the last position is among them.
template <int H, int D>
inline void leave_sums(const AttendCall& call, bool last, int dim, const Vec (*acc)[D]) {
  constexpr int L = specee::kLanes;
#pragma GCC unroll 4
  for (int g = 0; g < H; ++g)
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

// D blocks of 16 dimensions, starting at dimension `dim`, of positions [from, to), which all R rows attend
// to; more than one, in slots of their own number.
template <class Cache, int R, int H, int D>
inline void weigh_values(const AttendCall* calls, int from, int to, int dim, LoopFetch& fetch) {
  using Element = typename Cache::Element;
  const AttendCall& call = *calls;
  const Element* values = static_cast<const Element*>(call.values) + dim;
  const ptrdiff_t row = call.value_stride, stride = call.score_stride;
  const uintptr_t ahead = static_cast<uintptr_t>(kRowsAhead * row) * sizeof(Element);
  LoopFetch own = fetch;
  const float* weights[R];
  Vec acc[R * H][D];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    weights[r] = calls[r].weights;
    begin_sums<H, D>(calls[r], from, dim, acc + r * H);
  }
  int p = from;
  const int split = R > 1 || to < call.identity ? to : call.identity;
  const Element* v = values + p * row;
  for (; p < split; ++p, v += row) {
    own.step();
    weigh<Cache, R, H, D>(v, weights, p, stride, p + kRowsAhead < call.end ? ahead : 0, acc);
  }
  if constexpr (R == 1)
    for (; p < to; ++p) {  // few
      own.step();
      weigh<Cache, R, H, D>(values + call.path[p - call.identity] * row, weights, p, stride, 0, acc);
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) leave_sums<H, D>(calls[r], to >= calls[r].end, dim, acc + r * H);
  fetch = own;
}

// A function of its own: among others, its sums would lose their registers.
template <class Cache, int R, int H>
__attribute__((noinline)) void values_of(const AttendCall* calls, int from, int to, int dim_begin,
                                         int dim_end) {
  constexpr int L = specee::kLanes, D = attention_tiles(R * H);
  LoopFetch fetch(calls->stream, R);
  int dim = dim_begin;
  for (; dim + D * L <= dim_end; dim += D * L) weigh_values<Cache, R, H, D>(calls, from, to, dim, fetch);
  for (; dim < dim_end; dim += L) weigh_values<Cache, R, H, 1>(calls, from, to, dim, fetch);
  fetch.done();
}

// Of one row, [from, to) within what it attends to.
template <class Cache, int H>
void row_values(const AttendCall& call, int from, int to, int dim_begin, int dim_end) {
  const int begin = from > call.begin ? from : call.begin, end = to < call.end ? to : call.end;
  if (begin < end) values_of<Cache, 1, H>(&call, begin, end, dim_begin, dim_end);
}

// Of R rows: together where all attend to slots of their own number, before and behind that one by one.
template <class Cache, int R, int H>
void group_values(const AttendCall* calls, int from, int to, int dim_begin, int dim_end) {
  int begin = from, end = to;
  for (int r = 0; r < R; ++r) {
    const AttendCall& call = calls[r];
    const int in_place = call.end < call.identity ? call.end : call.identity;
    begin = begin > call.begin ? begin : call.begin;
    end = end < in_place ? end : in_place;
  }
  const bool together = R > 1 && begin < end;
  if (together) {
    for (int r = 0; r < R; ++r) row_values<Cache, H>(calls[r], from, begin, dim_begin, dim_end);
    values_of<Cache, R, H>(calls, begin, end, dim_begin, dim_end);
  }
  for (int r = 0; r < R; ++r) row_values<Cache, H>(calls[r], together ? end : from, to, dim_begin, dim_end);
}

void attend_values(const AttendCall* calls, int count, int from, int to, int dim_begin, int dim_end) {
  with_cache(*calls, [&](auto cache, auto heads) {
    constexpr int H = decltype(heads)::value;
    by_rows<attention_rows(H)>(calls, count, [&](const AttendCall* some, auto rows) {
      group_values<decltype(cache), decltype(rows)::value, H>(some, from, to, dim_begin, dim_end);
    });
  });
}

}  // namespace
