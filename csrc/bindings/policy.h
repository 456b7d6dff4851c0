// specee._cpu.RoundCosts and ExitDrafts: what policies decide in C++, as Python would take longer.
// ExitChoice, a part of ExitDrafts, is for tests.
#pragma once

#include <pybind11/pybind11.h>

namespace specee {

void bind_policy(pybind11::module_& m);

}  // namespace specee
