// Turns the engine's exceptions into the Python classes of the same names.
#pragma once

#include <pybind11/pybind11.h>

#include "specee/errors.h"

namespace specee {

inline void raise_python(const char* name, const char* message) {
  const pybind11::object type = pybind11::module_::import("specee.errors").attr(name);
  PyErr_SetString(type.ptr(), message);
}

inline void register_errors() {
  pybind11::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const RowError& error) {
      raise_python("RowError", error.what());
    } catch (const CapacityError& error) {
      raise_python("CapacityError", error.what());
    } catch (const ConfigurationError& error) {
      raise_python("ConfigurationError", error.what());
    } catch (const CheckpointError& error) {
      raise_python("CheckpointError", error.what());
    } catch (const NumericalError& error) {
      raise_python("NumericalError", error.what());
    } catch (const BackendUnavailableError& error) {
      raise_python("BackendUnavailableError", error.what());
    } catch (const DeviceError& error) {
      raise_python("DeviceError", error.what());
    } catch (const OutOfMemoryError& error) {
      raise_python("OutOfMemoryError", error.what());
    }
  });
}

}  // namespace specee
