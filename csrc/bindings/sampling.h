// How to draw tokens, as Python says it.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "cpu/sampling.h"

namespace specee {

// The low 64 bits of any whole number, as the plain version takes them.
inline uint64_t seed_bits(const pybind11::object& seed) {
  const uint64_t bits = PyLong_AsUnsignedLongLongMask(seed.ptr());
  if (PyErr_Occurred() != nullptr) throw pybind11::error_already_set();
  return bits;
}

// A specee.types.Sampling.
inline Sampling parse_sampling(const pybind11::handle& option) {
  return {option.attr("temperature").cast<double>(), option.attr("top_k").cast<int>(),
          option.attr("top_p").cast<double>(),       seed_bits(option.attr("seed")),
          option.attr("min_p").cast<double>(),       option.attr("repetition_penalty").cast<double>()};
}

inline std::vector<Sampling> parse_samplings(const pybind11::sequence& options) {
  std::vector<Sampling> sampling;
  for (const pybind11::handle option : options) sampling.push_back(parse_sampling(option));
  return sampling;
}

}  // namespace specee
