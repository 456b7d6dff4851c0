// The kernels by name, as functions of arguments that are known when the program runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/parameters.h"
#include "device.h"
// After what stands in for CUDA.
#include "cuda/kernels.cuh"

namespace emulation {

using specee::cuda::Parameter;

struct Value {
  void* pointer = nullptr;
  int64_t whole = 0;
  float real = 0.0f;
  template <class T>
  T as() const {
    if constexpr (std::is_pointer_v<T>) {
      return static_cast<T>(pointer);
    } else if constexpr (std::is_same_v<T, float>) {
      return real;
    } else {
      return static_cast<T>(whole);
    }
  }
};

using Values = std::vector<Value>;
struct Entry {
  std::vector<Parameter> parameters;
  std::function<void(const Values&)> call;
};

template <class... Types, size_t... Numbers>
Entry entry(void (*kernel)(Types...), std::index_sequence<Numbers...>) {
  return {specee::cuda::parameters_of(kernel),
          [kernel](const Values& values) { kernel(values[Numbers].template as<Types>()...); }};
}

template <class... Types>
Entry entry(void (*kernel)(Types...)) {
  return entry(kernel, std::index_sequence_for<Types...>());
}

inline const std::map<std::string, Entry>& entries() {
#define ENTRY(name) {#name, entry(&specee::cuda::name)},
  static const std::map<std::string, Entry> all = {SPECEE_CUDA_KERNELS(ENTRY)};
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
