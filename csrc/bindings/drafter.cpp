#include "bindings/drafter.h"

#include <pybind11/stl.h>

#include <tuple>
#include <utility>

#include "bindings/buffers.h"
#include "bindings/busy.h"
#include "bindings/parse.h"
#include "bindings/sampling.h"
#include "cpu/engine.h"

namespace py = pybind11;

namespace specee {
namespace {

// The drafter keeps its engine alive, and a column its drafter.
py::object make_drafter(const py::object& self, const std::vector<int64_t>& layers, int inner,
                        const std::string& type, bool plain) {
  py::object made =
      py::cast(self.cast<Engine&>().drafter(narrow(layers), inner, parse_weight_type(type), plain));
  py::detail::keep_alive_impl(made, self);
  return made;
}

py::object make_column(const py::object& self, const py::object& drafter, int64_t capacity,
                       const std::string& dtype, bool poison) {
  Engine& engine = self.cast<Engine&>();
  engine.check_capacity(capacity);
  Drafter& made_for = drafter.cast<Drafter&>();
  const Dtype kv_dtype = parse_dtype(dtype);
  std::unique_ptr<DrafterColumn> column;
  {
    py::gil_scoped_release release;  // the engine's lock is never awaited under Python's
    column = engine.drafter_column(made_for, static_cast<int>(capacity), kv_dtype, poison);
  }
  py::object made = py::cast(std::move(column));
  py::detail::keep_alive_impl(made, drafter);
  return made;
}

void set_part(Drafter& drafter, const std::string& name, const py::buffer& values,
              const std::string& format) {
  const py::buffer_info info = values.request();
  const WeightType source = parse_weight_type(format);
  const WeightRows rows = weight_rows_of(info, source, "part '" + name + "' of a drafter");
  drafter.block().set(name, rows.rows, rows.columns, rows.data, source);
}

// (sequence, column, length, stop_below, Sampling) each.
std::vector<ChainCall> parse_calls(const py::sequence& items) {
  std::vector<ChainCall> calls;
  for (const py::handle item : items) {
    const auto parts = item.cast<py::sequence>();
    calls.push_back({&parts[0].cast<Sequence&>(), &parts[1].cast<DrafterColumn&>(),
                     narrow({parts[2].cast<int64_t>()})[0], parts[3].cast<float>(),
                     parse_sampling(parts[4])});
  }
  return calls;
}

std::vector<std::pair<std::vector<int64_t>, std::vector<float>>> draft_chains(Engine& engine,
                                                                              Drafter& drafter,
                                                                              const py::sequence& items,
                                                                              const DraftHead* head) {
  const std::vector<ChainCall> calls = parse_calls(items);
  Work work;
  for (const ChainCall& call : calls) work.push_back({call.sequence, {}});
  std::vector<Chain> chains;
  {
    const Using use(work);
    py::gil_scoped_release release;
    chains = engine.draft_chains(drafter, calls, head);
  }
  std::vector<std::pair<std::vector<int64_t>, std::vector<float>>> made;
  for (Chain& chain : chains) made.emplace_back(std::move(chain.tokens), std::move(chain.confidences));
  return made;
}

// (sequence, column, nodes, depth, width, children, stop_below, deepen_from, Sampling, likely) each.
std::vector<TreeCall> parse_trees(const py::sequence& items) {
  std::vector<TreeCall> calls;
  for (const py::handle item : items) {
    const auto parts = item.cast<py::sequence>();
    std::vector<int64_t> limits;
    for (size_t i = 2; i < 6; ++i) limits.push_back(parts[i].cast<int64_t>());
    const std::vector<int> most = narrow(limits);
    calls.push_back({&parts[0].cast<Sequence&>(),
                     &parts[1].cast<DrafterColumn&>(),
                     {most[0], most[1], most[2], most[3], parts[6].cast<float>(), parts[7].cast<float>()},
                     parse_sampling(parts[8]),
                     narrow({parts[9].cast<int64_t>()})[0]});
  }
  return calls;
}

using TreeParts = std::tuple<std::vector<int64_t>, std::vector<int>, std::vector<float>, std::vector<Likely>>;

std::vector<TreeParts> draft_trees(Engine& engine, Drafter& drafter, const py::sequence& items,
                                   const DraftHead* head) {
  const std::vector<TreeCall> calls = parse_trees(items);
  Work work;
  for (const TreeCall& call : calls) work.push_back({call.sequence, {}});
  std::vector<Tree> trees;
  {
    const Using use(work);
    py::gil_scoped_release release;
    trees = engine.draft_trees(drafter, calls, head);
  }
  std::vector<TreeParts> made;
  for (Tree& tree : trees)
    made.emplace_back(std::move(tree.tokens), std::move(tree.parents), std::move(tree.chances),
                      std::move(tree.likely));
  return made;
}

}  // namespace

void bind_drafter(py::module_& m) {
  py::class_<DrafterColumn>(m, "DrafterColumn")
      .def_property_readonly("first", &DrafterColumn::first)
      .def_property_readonly("length", &DrafterColumn::length);
  py::class_<Drafter>(m, "Drafter")
      .def_property_readonly("bytes", [](Drafter& drafter) { return drafter.block().bytes(); })
      .def("set_part", &set_part)
      .def("check_complete", [](Drafter& drafter) { drafter.block().check_complete(); });
  m.attr("Engine").attr("drafter") =
      py::cpp_function(&make_drafter, py::is_method(m.attr("Engine")), py::arg("layers"), py::arg("inner"),
                       py::arg("format"), py::arg("plain") = false);
  m.attr("Engine").attr("drafter_column") =
      py::cpp_function(&make_column, py::is_method(m.attr("Engine")), py::arg("drafter"), py::arg("capacity"),
                       py::arg("dtype"), py::arg("poison"));
  m.attr("Engine").attr("draft_trees") = py::cpp_function(
      &draft_trees, py::is_method(m.attr("Engine")), py::arg("drafter"), py::arg("calls"), py::arg("head"));
  m.attr("Engine").attr("draft_chains") = py::cpp_function(
      &draft_chains, py::is_method(m.attr("Engine")), py::arg("drafter"), py::arg("calls"), py::arg("head"));
}

}  // namespace specee
