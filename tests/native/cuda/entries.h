// Kernels as functions of arguments that are known when the program runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/parameters.h"

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
using Entries = std::map<std::string, Entry>;

template <class... Types, size_t... Numbers>
Entry entry(void (*kernel)(Types...), std::index_sequence<Numbers...>) {
  return {specee::cuda::parameters_of(kernel),
          [kernel](const Values& values) { kernel(values[Numbers].template as<Types>()...); }};
}

template <class... Types>
Entry entry(void (*kernel)(Types...)) {
  return entry(kernel, std::index_sequence_for<Types...>());
}

}  // namespace emulation
