// The emulator for a host that has the arrays in its own memory: a kernel runs on them where they are. No
// sanitizer watches (a program under one has to be started so); emulator.cpp is for that.
#include <cstdio>

#include "kernel_entries.h"

// Kinds are a letter an argument (p, i, l, f); pointers, integers and the bits of floats are in `values`.
// Returns 0, or 1 with what is wrong in `why`.
extern "C" __attribute__((visibility("default"))) int specee_launch(const char* kernel, const unsigned* grid,
                                                                    unsigned threads, uint64_t seed,
                                                                    const char* kinds, const int64_t* values,
                                                                    char* why, size_t room) try {
  const emulation::Entry& entry = emulation::find_entry(kernel, kinds);
  emulation::Values arguments(entry.parameters.size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    arguments[i].whole = values[i];
    arguments[i].pointer = reinterpret_cast<void*>(values[i]);
    arguments[i].real = specee::bits_float(static_cast<uint32_t>(values[i]));
  }
  emulation::run_grid({grid[0], grid[1], grid[2]}, threads, seed, [&] { entry.call(arguments); });
  return 0;
} catch (const std::runtime_error& error) {
  std::snprintf(why, room, "%s", error.what());
  return 1;
}
