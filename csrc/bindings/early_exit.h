// specee._cpu.ExitPredictors, and the verbs of Engine that belong to early exits.
#pragma once

#include <pybind11/pybind11.h>

namespace specee {

void bind_early_exit(pybind11::module_& m);

}  // namespace specee
