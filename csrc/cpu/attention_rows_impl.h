// What scores and weighted sums of attention share: formats of the cache, how many rows go together, and what
// keys or values are multiplied with.
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

// Tiles of keys, or blocks of sixteen dimensions of values, that so many heads of all rows take together.
inline constexpr int attention_tiles(int heads) {
  const int room = kAttentionAccumulators / heads;
  return room >= 4 ? 4 : room >= 2 ? 2 : 1;
}

// Rows of so many heads each that go through keys and values together: each is loaded and widened once for
// all.
inline constexpr int attention_rows(int heads) {
  const int rows = kAttentionRowHeads / heads;
  return rows >= 3 ? 3 : rows >= 1 ? rows : 1;
}

// What keys or values are multiplied with: a number of each head of each row, spread over lanes. Once for all
// tiles, since spreading is a load and loads would bind; but anew for each where registers are few, and three
// heads would take those of accumulators. One that is spilled is a chain through memory, at twice the time.
template <int R, int H>
class HeadFactors {
 public:
  // at[r] + offset: of row r's first head; the next ones `stride` further on each.
  HeadFactors(const float* const (&at)[R], ptrdiff_t offset, ptrdiff_t stride) : stride_(stride) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      at_[r] = at[r] + offset;
      if constexpr (!kFewRegisters)
#pragma GCC unroll 4
        for (int g = 0; g < H; ++g) spread_[r * H + g] = vspread(at_[r][g * stride]);
    }
  }
  Vec of(int r, int g) const {
    if constexpr (kFewRegisters) return vset(at_[r][g * stride_]);
    return spread_[r * H + g];
  }
  void next_tile() {
    if constexpr (kFewRegisters && R * H > 2)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) __asm__("" : "+r"(at_[r]));
  }

 private:
  const float* at_[R];
  ptrdiff_t stride_;
  Vec spread_[kFewRegisters ? 1 : R * H];
};

template <int Count>
struct Constant {
  static constexpr int value = Count;
};

// Calls f with the format of the cache, and the number of heads of each row as a constant.
template <class Cache, class Function>
inline void with_heads(const AttendCall& call, const Function& f) {
  if (call.heads == 1) f(Cache(), Constant<1>());
  if (call.heads == 2) f(Cache(), Constant<2>());
  if (call.heads == 3) f(Cache(), Constant<3>());
}

template <class Function>
inline void with_cache(const AttendCall& call, const Function& f) {
  if (call.dtype == specee::Dtype::f32) with_heads<F32Cache>(call, f);
  if (call.dtype == specee::Dtype::bf16) with_heads<Bf16Cache>(call, f);
  if (call.dtype == specee::Dtype::f16) with_heads<F16Cache>(call, f);
}

// Calls f with some of the calls, and as a constant how many: all of them, shared out evenly, Most at a time.
template <int Most, class Function>
inline void row_group(const AttendCall* calls, int count, const Function& f) {
  if constexpr (Most > 1) {
    if (count < Most) return row_group<Most - 1>(calls, count, f);
  }
  f(calls, Constant<Most>());
}
template <int Most, class Function>
inline void by_rows(const AttendCall* calls, int count, const Function& f) {
  for (int groups = (count + Most - 1) / Most; groups > 0; --groups) {
    const int some = (count + groups - 1) / groups;
    row_group<Most>(calls, some, f);
    calls += some;
    count -= some;
  }
}

}  // namespace
