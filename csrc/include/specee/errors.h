// Errors the engine raises on purpose. The bindings turn each into the class of the same name in
// specee.errors, so messages follow its rule: the value received, what is allowed, what to do.
#pragma once

#include <stdexcept>
#include <string>

namespace specee {

struct RowError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct CapacityError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct ConfigurationError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct CheckpointError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct NumericalError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct BackendUnavailableError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct OutOfMemoryError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace specee
