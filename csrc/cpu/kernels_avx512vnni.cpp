// clang-format off: the vector type comes first, the files after it are written over it.
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"

namespace {
inline constexpr int kQuantNextRows = 5;
}

#include "cpu/quant_vnni.h"

#include "cpu/quant_impl.h"
// clang-format on

namespace specee {

constexpr LinearKernels kAvx512VnniLinear = with_packed(nullptr, nullptr, nullptr);

}  // namespace specee
