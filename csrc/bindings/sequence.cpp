#include "bindings/sequence.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "bindings/buffers.h"
#include "bindings/busy.h"
#include "bindings/parse.h"
#include "cpu/sequence.h"
#include "specee/errors.h"

namespace py = pybind11;

namespace specee {
namespace {

// Everything that reads what advance() changes, or changes rows, keeps off a sequence in use.
py::tuple row(Sequence& sequence, int64_t slot) {
  require_free(sequence);
  const Row& row = sequence.row(narrow({slot})[0]);
  return py::make_tuple(slot, row.token, row.parent, row.position, row.done);
}

py::tuple frontier(Sequence& sequence) {
  require_free(sequence);
  const std::vector<int> counts = sequence.frontier();
  py::tuple made(counts.size());
  py::int_ count(0);  // most neighbours are equal, and then share an object
  for (size_t layer = 0; layer < counts.size(); ++layer) {
    if (layer == 0 || counts[layer] != counts[layer - 1]) count = py::int_(counts[layer]);
    made[layer] = count;
  }
  return made;
}

py::tuple kv(Sequence& sequence, int layer, const std::vector<int64_t>& wide) {
  require_free(sequence);
  const std::vector<int> slots = narrow(wide);
  const KvCache& cache = sequence.cache();
  if (layer < 0 || layer >= cache.layers())
    throw RowError("there is no layer " + std::to_string(layer) + ": layers are 0 to " +
                   std::to_string(cache.layers() - 1));
  const py::ssize_t rows = static_cast<py::ssize_t>(slots.size()), heads = cache.heads(),
                    dim = cache.head_dim();
  Array<float> keys({rows, heads, dim}), values({rows, heads, dim});
  for (size_t i = 0; i < slots.size(); ++i) {
    if (sequence.row(slots[i]).done <= layer)
      throw RowError("slot " + std::to_string(slots[i]) + " has not done layer " + std::to_string(layer));
    for (int head = 0; head < cache.heads(); ++head)
      cache.read(layer, head, slots[i], keys.mutable_data(static_cast<py::ssize_t>(i), head, 0),
                 values.mutable_data(static_cast<py::ssize_t>(i), head, 0));
  }
  return py::make_tuple(keys, values);
}

int append(Sequence& sequence, const std::vector<int64_t>& tokens) {
  require_free(sequence);
  return sequence.append(narrow(tokens));
}

std::vector<int> branch(Sequence& sequence, const std::vector<int64_t>& tokens,
                        const std::optional<std::vector<int64_t>>& parents, std::optional<int64_t> root) {
  require_free(sequence);
  const std::vector<int> before = parents ? narrow(*parents) : std::vector<int>{};
  const int start = root ? narrow({*root})[0] : sequence.last_committed();
  return sequence.branch(narrow(tokens), parents ? &before : nullptr, start);
}

void prune(Sequence& sequence, const std::vector<int64_t>& slots) {
  require_free(sequence);
  sequence.prune(narrow(slots));
}

void commit(Sequence& sequence, const std::vector<int64_t>& path) {
  require_free(sequence);
  sequence.commit(narrow(path));
}

void rollback(Sequence& sequence, int64_t n) {
  require_free(sequence);
  sequence.rollback(narrow({n})[0]);
}

void keep(Sequence& sequence, const std::vector<int64_t>& layers, int64_t positions) {
  require_free(sequence);
  const int64_t most = sequence.capacity();  // as good as any number above
  sequence.keep(narrow(layers), narrow({std::min(positions, most)})[0]);
}

int kept(Sequence& sequence) {
  require_free(sequence);
  return sequence.kept();
}

}  // namespace

void bind_sequence(py::module_& m) {
  py::class_<Sequence>(m, "Sequence")
      .def_property_readonly("length", &Sequence::length)
      .def_property_readonly("capacity", &Sequence::capacity)
      .def_property_readonly("frontier", &frontier)
      .def_property_readonly("speculative", &Sequence::speculative)
      .def_property_readonly("cache_bytes", [](const Sequence& s) { return s.cache().bytes(); })
      .def("row", &row)
      .def("kv", &kv)
      .def("append", &append)
      .def("branch", &branch, py::arg("tokens"), py::arg("parents") = py::none(),
           py::arg("root") = py::none())
      .def("prune", &prune)
      .def("commit", &commit)
      .def("rollback", &rollback)
      .def("keep", &keep)
      .def_property_readonly("kept", &kept);
}

}  // namespace specee
