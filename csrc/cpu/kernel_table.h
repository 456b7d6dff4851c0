// Everything that a kernels_*.cpp offers which has all of it, in one table. Included last, after the vector
// type and the integer lanes.
#pragma once

#include "cpu/attention_impl.h"
#include "cpu/kernels.h"
#include "cpu/linear_impl.h"
#include "cpu/logits_impl.h"
#include "cpu/norm_impl.h"
#include "cpu/quant_impl.h"
#include "cpu/quantise_impl.h"
#include "cpu/rotate_impl.h"
#include "cpu/screen_impl.h"
#include "cpu/silu_impl.h"
#include "cpu/sweep_impl.h"

namespace {

// `Bf16` multiplies bf16 weights with inputs of that form.
template <class Bf16>
constexpr specee::Kernels kernel_table(const char* name, specee::InputForm bf16_form) {
  return {
      name,          bf16_form,     with_packed(linear<F32Format>, linear<Bf16>, linear<F16Format>),
      quantise_row,  rms_norm,      silu,
      rotate,        attend_scores, attend_weights,
      attend_values, narrow,        largest,
      sum_exp,       screen,        sweep,
  };
}

}  // namespace
