#include "bindings/rounds.h"

#include <pybind11/stl.h>

#include <vector>

#include "bindings/busy.h"
#include "bindings/parse.h"
#include "bindings/sampling.h"
#include "bindings/work.h"
#include "cpu/engine.h"

namespace py = pybind11;

namespace specee {
namespace {

constexpr size_t kChainParts = 3;

int small(const py::handle& value) { return narrow({value.cast<int64_t>()})[0]; }

// (column, length, stop_below) of a chain, (column, nodes, depth, width, children, stop_below, deepen_from)
// of a tree, or None.
RoundDrafts parse_drafts(const py::handle& item) {
  if (item.is_none()) return {};
  const auto parts = item.cast<py::sequence>();
  RoundDrafts drafts;
  drafts.column = &parts[0].cast<DrafterColumn&>();
  drafts.branched = parts.size() != kChainParts;
  drafts.limits.nodes = small(parts[1]);
  if (!drafts.branched) {
    drafts.limits.stop_below = parts[2].cast<float>();
    return drafts;
  }
  drafts.limits.depth = small(parts[2]);
  drafts.limits.width = small(parts[3]);
  drafts.limits.children = small(parts[4]);
  drafts.limits.stop_below = parts[5].cast<float>();
  drafts.limits.deepen_from = parts[6].cast<float>();
  return drafts;
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
                                 py::tuple(py::cast(result.confidences)), result.depth, result.copied));
  return py::make_tuple(rounds, turn.seconds.draft, turn.seconds.layers, turn.seconds.head);
}

py::list run_rounds(Engine& engine, const py::sequence& items, Drafter* drafter, const DraftHead* head,
                    int turns) {
  std::vector<RoundCall> calls = parse_rounds(items);
  Work work;
  for (const RoundCall& call : calls) work.push_back({call.sequence, {}});
  std::vector<RoundTurn> done;
  {
    const Using use(work);
    py::gil_scoped_release release;
    done = engine.run_rounds(std::move(calls), drafter, head, check_signals, turns);
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
                       py::arg("head"), py::arg("turns"));
}

}  // namespace specee
