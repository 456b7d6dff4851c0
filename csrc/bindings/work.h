// Rows as Python names them, and what long calls do between blocks of rows.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings/parse.h"
#include "cpu/engine.h"
#include "specee/errors.h"

namespace specee {

// (sequence, slots) pairs.
inline Work parse_work(const pybind11::sequence& items) {
  Work work;
  for (const pybind11::handle item : items) {
    const auto pair = item.cast<pybind11::sequence>();
    Sequence* sequence = pair[0].cast<Sequence*>();
    if (sequence == nullptr) throw RowError("got None where a sequence is needed");
    work.push_back({sequence, narrow(pair[1].cast<std::vector<int64_t>>())});
  }
  return work;
}

// Lets Python handle Ctrl-C.
inline void check_signals() {
  pybind11::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}

}  // namespace specee
