// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"

namespace {
inline constexpr int kQuantNextRows = 5;
}

#include "cpu/quant_avx512.h"
#include "cpu/quant_pairs.h"

#include "cpu/kernel_table.h"
// clang-format on

namespace specee {

const Kernels& kernels_avx512() {
  static constexpr Kernels table = kernel_table<Bf16Format>("avx512", InputForm::rounded);
  return table;
}

}  // namespace specee
