// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"

#include "cpu/attention_impl.h"
#include "cpu/linear_impl.h"
#include "cpu/norm_impl.h"
// clang-format on

namespace specee {

const Kernels& kernels_avx512() {
  static constexpr Kernels table = {"avx512", false,  linear<F32Format>, linear<Bf16Format>,
                                    rms_norm, attend, sweep_bytes};
  return table;
}

}  // namespace specee
