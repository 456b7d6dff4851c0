// Which kernel table this processor runs, chosen once.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace specee {

// Slowest first: portable, avx2, avx512, avx512vnni, avx512bf16, amx (all but the first in x86-64 builds only).
std::vector<std::string> compiled_isas();
std::vector<std::string> supported_isas();

// The named table, or the fastest supported one for an empty name. Throws ConfigurationError for a name that
// is unknown or that this processor lacks, listing what is possible.
const Kernels& select_kernels(const std::string& name);

}  // namespace specee
