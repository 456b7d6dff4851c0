// Which kernel table this processor runs, chosen once.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace specee {

// Slowest first: portable, avx2, avx512, avx512vnni, avx512bf16, amx (all but the first in x86-64 builds
// only).
std::vector<std::string> compiled_isas();
std::vector<std::string> supported_isas();

// The named table, or for an empty name the fastest that the processor supports and the system lets the
// process have (AMX's tiles are asked for here). Throws ConfigurationError for a name that is unknown, that
// this processor lacks, listing what is possible, or that the system refuses.
const Kernels& select_kernels(const std::string& name);

}  // namespace specee
