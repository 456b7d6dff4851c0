// specee._cpu.Engine.run_rounds: whole rounds of decoding.
#pragma once

#include <pybind11/pybind11.h>

namespace specee {

void bind_rounds(pybind11::module_& m);

}  // namespace specee
