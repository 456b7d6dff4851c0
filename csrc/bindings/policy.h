// specee._cpu.RoundCosts, ExitChoice and ExitDrafts: what policies decide in C++, as Python would take
// longer.
#pragma once

#include <pybind11/pybind11.h>

namespace specee {

void bind_policy(pybind11::module_& m);

}  // namespace specee
