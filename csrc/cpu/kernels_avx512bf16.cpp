// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"

#include "cpu/linear_impl.h"
// clang-format on

namespace {

// bf16 pairs multiplied and added by one instruction, which also halves the bytes of x. Its internal rounding
// is the processor's own, so results differ from the other instruction sets (docs/numerics.md).
struct Bf16DotFormat {
  using Input = uint16_t;
  static constexpr ptrdiff_t kStepBytes = 64;
  static constexpr int kInputsPerStep = 2;
  static constexpr int kParts = 1;
  using Weights = __m512bh;
  using Inputs = __m512i;
  template <int Part>
  static inline __m512bh load(const char* p) {
    return (__m512bh)_mm512_loadu_si512(p);
  }
  template <int>
  static inline __m512i spread(const uint16_t* x) {
    int pair;
    __builtin_memcpy(&pair, x, sizeof pair);
    __m512i v = _mm512_set1_epi32(pair);
    __asm__("" : "+v"(v));  // as vspread() does
    return v;
  }
  static inline void step(__m512bh w, __m512i x, Vec& acc) {
    acc.v = _mm512_dpbf16_ps(acc.v, w, (__m512bh)x);
  }
};

}  // namespace

namespace specee {

constexpr LinearKernels kAvx512Bf16Linear = {{nullptr, linear<Bf16DotFormat>}};

}  // namespace specee
