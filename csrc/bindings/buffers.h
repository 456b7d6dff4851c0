// Buffers from Python, checked.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <climits>
#include <string>

#include "specee/errors.h"
#include "specee/formats.h"

namespace specee {

template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

// Rows of weights of one tensor; `columns` of a vector is 1.
struct WeightRows {
  int rows, columns;
  const void* data;
};

// A C-contiguous vector or matrix whose items fit `source`. Throws CheckpointError.
inline WeightRows weight_rows_of(const pybind11::buffer_info& info, WeightType source,
                                 const std::string& what) {
  const int item = is_quantised(source) ? 1 : source == WeightType::f32 ? 4 : 2;
  const bool vector = info.ndim == 1;
  const pybind11::ssize_t columns = vector ? 1 : info.ndim == 2 ? info.shape[1] : -1;
  const bool contiguous = columns > 0 && info.strides.back() == info.itemsize &&
                          (vector || info.strides[0] == info.itemsize * columns);
  if (!contiguous || info.itemsize != item || info.shape[0] > INT_MAX || columns > INT_MAX)
    throw CheckpointError(what + " must be a C-contiguous vector or matrix of " + weight_type_name(source));
  return {static_cast<int>(info.shape[0]), static_cast<int>(columns), info.ptr};
}

// A C-contiguous float32 array of rows x columns... with any number of dimensions. Throws RowError.
inline pybind11::ssize_t float_rows(const Array<float>& array, pybind11::ssize_t columns, const char* what) {
  if (array.ndim() < 2 || array.size() != array.shape(0) * columns)
    throw RowError(std::string(what) + " must be float32 of shape (rows, ...) with " +
                   std::to_string(columns) + " values a row");
  return array.shape(0);
}

}  // namespace specee
