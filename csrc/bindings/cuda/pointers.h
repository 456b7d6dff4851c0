// Where an array of any library is on the device.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "specee/errors.h"

namespace specee {

// The start of DLPack's managed tensor (dmlc/dlpack, include/dlpack/dlpack.h): all that an address needs.
struct DlpackTensor {
  void* data;
  int32_t device_type, device_id, dimensions;
  uint8_t type_code, type_bits;
  uint16_t type_lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

inline constexpr int32_t kDlpackCuda = 2, kDlpackManaged = 13;

// The capsule stays the caller's, and frees itself: an array must live until its kernel has run anyway.
inline uintptr_t dlpack_pointer(const pybind11::object& capsule) {
  auto* tensor = static_cast<DlpackTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (tensor == nullptr) throw pybind11::error_already_set();
  if (tensor->device_type != kDlpackCuda && tensor->device_type != kDlpackManaged)
    throw ConfigurationError("array is on DLPack device type " + std::to_string(tensor->device_type) +
                             ": kernels take arrays of CUDA devices");
  return reinterpret_cast<uintptr_t>(tensor->data) + static_cast<uintptr_t>(tensor->byte_offset);
}

// None is null, a whole number an address. Throws ConfigurationError.
inline uintptr_t pointer_of(const pybind11::handle& array) {
  if (array.is_none()) return 0;
  if (PyLong_Check(array.ptr())) return array.cast<uintptr_t>();
  if (pybind11::hasattr(array, "__cuda_array_interface__")) {
    const pybind11::dict interface = array.attr("__cuda_array_interface__");
    return interface["data"].cast<pybind11::tuple>()[0].cast<uintptr_t>();
  }
  if (pybind11::hasattr(array, "__dlpack__")) return dlpack_pointer(array.attr("__dlpack__")());
  throw ConfigurationError("argument of type " +
                           pybind11::str(pybind11::type::of(array).attr("__name__")).cast<std::string>() +
                           " is no array of a device: allowed are an address, None, and what has "
                           "__cuda_array_interface__ or __dlpack__");
}

}  // namespace specee
