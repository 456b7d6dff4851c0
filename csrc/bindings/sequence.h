// specee._cpu.Sequence
#pragma once

#include <pybind11/pybind11.h>

namespace specee {

void bind_sequence(pybind11::module_& m);

}  // namespace specee
