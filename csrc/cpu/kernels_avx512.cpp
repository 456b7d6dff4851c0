// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"

#include "cpu/attention_impl.h"
#include "cpu/linear_impl.h"
#include "cpu/norm_impl.h"
#include "cpu/quantise_impl.h"
#include "cpu/quant_avx512.h"
#include "cpu/quant_impl.h"
#include "cpu/rotate_impl.h"
// clang-format on

namespace specee {

const Kernels& kernels_avx512() {
  static constexpr Kernels table = {
      "avx512",
      InputForm::rounded,
      {linear<F32Format>, linear<Bf16Format>, linear<F16Format>, linear_quant<Q4_0Format>,
       linear_quant<Q4_1Format>, linear_quant<Q8_0Format>, linear_quant<Q4KFormat>, linear_quant<Q5KFormat>,
       linear_quant<Q6KFormat>},
      quantise_row,
      rms_norm,
      rotate,
      attend_scores,
      attend_weights,
      attend_values,
      narrow,
      largest,
      sweep_bytes};
  return table;
}

}  // namespace specee
