// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"

// Packed products are those of VNNI, but that fewer rows fetch the next blocks: processors with AMX have twice
// the second-level cache. Integer tiles were no faster: a unit's dot products go through memory to be scaled.
namespace {
inline constexpr int kQuantNextRows = 3;
}

#include "cpu/quant_vnni.h"

#include "cpu/quant_impl.h"

#include "cpu/amx_tiles.h"

#include "cpu/linear_amx.h"
// clang-format on

namespace specee {

constexpr LinearKernels kAmxLinear = with_packed(nullptr, linear_bf16_amx, nullptr);

}  // namespace specee
