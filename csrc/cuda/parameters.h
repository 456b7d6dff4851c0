// What a kernel takes, read off its signature.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace specee::cuda {

enum class Parameter : char { pointer, int32, int64, float32 };

template <class T>
constexpr Parameter parameter_of() {
  if constexpr (std::is_pointer_v<T>) {
    return Parameter::pointer;
  } else if constexpr (std::is_same_v<T, int>) {
    return Parameter::int32;
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return Parameter::int64;
  } else {
    static_assert(std::is_same_v<T, float>, "kernels take pointers, int, int64_t and float");
    return Parameter::float32;
  }
}

template <class... Types>
std::vector<Parameter> parameters_of(void (*)(Types...)) {
  return {parameter_of<Types>()...};
}

}  // namespace specee::cuda
