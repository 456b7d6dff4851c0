// The product that is written for AMX, over plain tiles: on every processor, and in view of sanitizers.
// clang-format off: the vector type and the tiles come first, the files after them are written over them.
#include "cpu/vec_portable.h"
#include "cpu/vec_math.h"

#include "plain_tiles.h"

#include "cpu/linear_amx.h"
// clang-format on

#include "tests.h"

namespace native {

void test_tile_linear(Random& random) {
  specee::Kernels kernels = specee::kernels_portable();
  kernels.bf16_form = specee::InputForm::halves;
  kernels.linear[static_cast<int>(specee::WeightType::bf16)] = linear_bf16_amx;
  test_linear(kernels, random);
}

}  // namespace native
