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

const LinearKernel kAvx512VnniLinear[kWeightTypes] = {
    nullptr,
    nullptr,
    nullptr,
    linear_quant<Q4_0Format>,
    linear_quant<Q4_1Format>,
    linear_quant<Q8_0Format>,
    linear_quant<Q4KFormat>,
    linear_quant<Q5KFormat>,
    linear_quant<Q6KFormat>,
};

}  // namespace specee
