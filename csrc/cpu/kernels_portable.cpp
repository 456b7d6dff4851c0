// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_portable.h"
#include "cpu/vec_math.h"

#include "cpu/quant_portable.h"

#include "cpu/kernel_table.h"
// clang-format on

namespace specee {

const Kernels& kernels_portable() {
  static constexpr Kernels table = kernel_table<Bf16Format>("portable", InputForm::rounded);
  return table;
}

}  // namespace specee
