// specee._cpu.ops: single operations, for benchmarks and tests.
#pragma once

#include <pybind11/pybind11.h>

namespace specee {

void bind_ops(pybind11::module_& parent);

}  // namespace specee
