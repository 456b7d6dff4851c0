// The product that is written for AMX, over plain tiles: on every processor, and in view of sanitizers,
// without which some of what it must not read would not show.
// clang-format off: the vector type and the tiles come first, the files after them are written over them.
#include "cpu/vec_portable.h"
#include "cpu/vec_math.h"

#include "plain_tiles.h"

#include "cpu/linear_amx.h"
// clang-format on

#include <algorithm>

#include "cpu/isa.h"
#include "tests.h"

namespace native {

void test_tile_linear(Random& random) {
  specee::Kernels plain = specee::kernels_portable();
  plain.bf16_form = specee::InputForm::halves;
  plain.linear.of[static_cast<int>(specee::WeightType::bf16)] = linear_bf16_amx;
  test_bf16_linear(plain, random);
  const std::vector<std::string> isas = specee::supported_isas();
  if (std::find(isas.begin(), isas.end(), "amx") != isas.end())
    test_same_bf16(specee::select_kernels("amx"), plain, random);
}

}  // namespace native
