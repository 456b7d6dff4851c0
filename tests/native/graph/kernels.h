// What the fake driver runs: kernels of the emulator by name.
#pragma once

#include "../cuda/entries.h"

namespace fake {

const emulation::Entries& kernels();

// set_conditions, whose argument is a structure.
void set_conditions(const void* batch, unsigned threads, uint64_t seed);

}  // namespace fake

// The fake driver's.
void cudaGraphSetConditional(unsigned long long handle, unsigned int value);
