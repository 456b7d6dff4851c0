// The kernels by name.
#pragma once

#include <stdexcept>

#include "device.h"
#include "entries.h"
// After what stands in for CUDA.
#include "cuda/kernels.cuh"

namespace emulation {

inline const Entries& entries() {
#define ENTRY(name) {#name, entry(&specee::cuda::name)},
  static const Entries all = {SPECEE_CUDA_KERNELS(ENTRY)};
#undef ENTRY
  return all;
}

// What the host writes for each kind of argument.
inline char letter(Parameter parameter) {
  switch (parameter) {
    case Parameter::pointer:
      return 'p';
    case Parameter::int32:
      return 'i';
    case Parameter::int64:
      return 'l';
    default:
      return 'f';
  }
}

// The kernel that takes arguments of these kinds. Throws std::runtime_error if there is none.
inline const Entry& find_entry(const std::string& name, const std::string& kinds) {
  const auto found = entries().find(name);
  if (found == entries().end()) throw std::runtime_error("no kernel '" + name + "'");
  const std::vector<Parameter>& parameters = found->second.parameters;
  if (parameters.size() != kinds.size())
    throw std::runtime_error(name + " takes " + std::to_string(parameters.size()) +
                             " arguments, and there are " + std::to_string(kinds.size()));
  for (size_t i = 0; i < parameters.size(); ++i)
    if (kinds[i] != letter(parameters[i]))
      throw std::runtime_error(name + ": argument " + std::to_string(i) + " is not of kind " +
                               letter(parameters[i]));
  return found->second;
}

}  // namespace emulation
