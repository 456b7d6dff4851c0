// specee._cpu.Drafter, and what Engine does with it.
#pragma once

#include <pybind11/pybind11.h>

namespace specee {

void bind_drafter(pybind11::module_& m);

}  // namespace specee
