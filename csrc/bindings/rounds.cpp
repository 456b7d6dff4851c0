#include "bindings/rounds.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/busy.h"
#include "bindings/parse.h"
#include "bindings/sampling.h"
#include "bindings/work.h"
#include "cpu/engine.h"

namespace py = pybind11;

namespace specee {
namespace {

int small(const py::handle& value) { return narrow({value.cast<int64_t>()})[0]; }

// (column, length, stop_below).
RoundDrafts parse_chain(const py::sequence& parts) {
  RoundDrafts drafts;
  drafts.kind = DraftKind::chain;
  drafts.column = &parts[0].cast<DrafterColumn&>();
  drafts.limits.nodes = small(parts[1]);
  drafts.limits.stop_below = parts[2].cast<float>();
  return drafts;
}

// (column, nodes, depth, width, children, stop_below, deepen_from).
RoundDrafts parse_tree(const py::sequence& parts) {
  RoundDrafts drafts;
  drafts.kind = DraftKind::tree;
  drafts.column = &parts[0].cast<DrafterColumn&>();
  drafts.limits = {small(parts[1]), small(parts[2]),        small(parts[3]),
                   small(parts[4]), parts[5].cast<float>(), parts[6].cast<float>()};
  return drafts;
}

// (layer, head, length, stop_below).
RoundDrafts parse_layer(const py::sequence& parts) {
  RoundDrafts drafts;
  drafts.kind = DraftKind::layer;
  drafts.layers = {small(parts[0])};
  drafts.head = parts[1].cast<const DraftHead*>();
  drafts.limits.nodes = small(parts[2]);
  drafts.limits.stop_below = parts[3].cast<float>();
  return drafts;
}

// (column, length, stop_below, layers, threshold).
RoundDrafts parse_exits(const py::sequence& parts) {
  RoundDrafts drafts = parse_chain(parts);
  drafts.kind = DraftKind::exits;
  drafts.layers = narrow(parts[3].cast<std::vector<int64_t>>());
  drafts.threshold = parts[4].cast<float>();
  return drafts;
}

// Kinds of drafts differ in the number of their parts. None for none.
RoundDrafts parse_drafts(const py::handle& item) {
  if (item.is_none()) return {};
  const auto parts = item.cast<py::sequence>();
  switch (parts.size()) {
    case 3:
      return parse_chain(parts);
    case 4:
      return parse_layer(parts);
    case 5:
      return parse_exits(parts);
    case 7:
      return parse_tree(parts);
    default:
      throw py::type_error("drafts of " + std::to_string(parts.size()) + " parts: there are 3, 4, 5 or 7");
  }
}

// (index, length, stop_below), or None.
RoundCopies parse_copies(const py::handle& item) {
  if (item.is_none()) return {};
  const auto parts = item.cast<py::sequence>();
  return {&parts[0].cast<NgramIndex&>(), small(parts[1]), parts[2].cast<float>()};
}

// (sequence, Sampling, ends, remaining, drafts, copies) each.
std::vector<RoundCall> parse_rounds(const py::sequence& items) {
  std::vector<RoundCall> calls;
  for (const py::handle item : items) {
    const auto parts = item.cast<py::sequence>();
    RoundCall call{&parts[0].cast<Sequence&>(), parse_sampling(parts[1]), {}, small(parts[3]),
                   parse_drafts(parts[4]),      parse_copies(parts[5])};
    for (const py::handle token : parts[2]) call.ends.push_back(token.cast<int64_t>());
    calls.push_back(std::move(call));
  }
  return calls;
}

py::tuple turn_of(const RoundTurn& turn) {
  py::list rounds;
  for (const RoundResult& result : turn.results)
    rounds.append(py::make_tuple(py::tuple(py::cast(result.tokens)), result.accepted,
                                 py::tuple(py::cast(result.confidences)), result.depth, result.copied,
                                 py::tuple(py::cast(result.exits))));
  const RoundSeconds& spent = turn.seconds;
  return py::make_tuple(rounds, spent.draft, spent.draft_head, spent.layers, spent.head);
}

py::list run_rounds(Engine& engine, const py::sequence& items, Drafter* drafter, const DraftHead* head,
                    int turns, const ExitPredictors* exits) {
  std::vector<RoundCall> calls = parse_rounds(items);
  Work work;
  for (const RoundCall& call : calls) work.push_back({call.sequence, {}});
  std::vector<RoundTurn> done;
  {
    const Using use(work);
    py::gil_scoped_release release;
    done = engine.run_rounds(std::move(calls), {drafter, head, exits}, check_signals, turns);
  }
  py::list made;
  for (const RoundTurn& turn : done) made.append(turn_of(turn));
  return made;
}

}  // namespace

void bind_rounds(py::module_& m) {
  py::class_<NgramIndex>(m, "NgramIndex").def(py::init<int, int>(), py::arg("longest"), py::arg("shortest"));
  m.attr("Engine").attr("run_rounds") =
      py::cpp_function(&run_rounds, py::is_method(m.attr("Engine")), py::arg("calls"), py::arg("drafter"),
                       py::arg("head"), py::arg("turns"), py::arg("exits"));
}

}  // namespace specee
