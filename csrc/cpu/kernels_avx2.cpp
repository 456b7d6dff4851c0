// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_avx2.h"
#include "cpu/vec_math.h"

#include "cpu/quant_avx2.h"
#include "cpu/quant_pairs.h"

#include "cpu/kernel_table.h"
// clang-format on

namespace specee {

const Kernels& kernels_avx2() {
  static constexpr Kernels table = kernel_table<Bf16Format>("avx2", InputForm::rounded);
  return table;
}

}  // namespace specee
