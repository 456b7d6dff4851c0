#include "bindings/early_exit.h"

#include <pybind11/stl.h>

#include <tuple>
#include <utility>

#include "bindings/buffers.h"
#include "bindings/busy.h"
#include "bindings/parse.h"
#include "bindings/sampling.h"
#include "bindings/work.h"
#include "cpu/engine.h"

namespace py = pybind11;

namespace specee {
namespace {

// The predictors keep their engine alive.
py::object make_predictors(const py::object& self, int candidates, int width) {
  py::object made = py::cast(self.cast<Engine&>().exit_predictors(candidates, width));
  py::detail::keep_alive_impl(made, self);
  return made;
}

void set_layer(ExitPredictors& predictors, int layer, const Array<float>& first,
               const Array<float>& first_bias, const Array<float>& second, float second_bias) {
  const py::ssize_t width = predictors.width(), features = predictors.features();
  if (first.ndim() != 2 || first.shape(0) != width || first.shape(1) != features || first_bias.ndim() != 1 ||
      first_bias.shape(0) != width || second.ndim() != 1 || second.shape(0) != width)
    throw ConfigurationError(
        "an exit predictor of " + std::to_string(width) + " units and " + std::to_string(features) +
        " features has first (width, features), first_bias (width,) and second (width,)");
  predictors.set(layer, first.data(), first_bias.data(), second.data(), second_bias);
}

// (sequence, column, slot) each.
std::vector<RankCall> parse_ranks(const py::sequence& items) {
  std::vector<RankCall> calls;
  for (const py::handle item : items) {
    const auto parts = item.cast<py::sequence>();
    calls.push_back({&parts[0].cast<Sequence&>(), &parts[1].cast<DrafterColumn&>(),
                     narrow({parts[2].cast<int64_t>()})[0]});
  }
  return calls;
}

// (sequence, column, slot, layers, threshold, Sampling) each.
std::vector<ExitCall> parse_exits(const py::sequence& items) {
  std::vector<ExitCall> calls;
  for (const py::handle item : items) {
    const auto parts = item.cast<py::sequence>();
    calls.push_back({&parts[0].cast<Sequence&>(), &parts[1].cast<DrafterColumn&>(),
                     narrow({parts[2].cast<int64_t>()})[0], narrow(parts[3].cast<std::vector<int64_t>>()),
                     parts[4].cast<float>(), parse_sampling(parts[5])});
  }
  return calls;
}

template <class Call>
Work work_of(const std::vector<Call>& calls) {
  Work work;
  for (const Call& call : calls) work.push_back({call.sequence, {call.slot}});
  return work;
}

py::tuple leave_early(Engine& engine, Drafter& drafter, const ExitPredictors& predictors,
                      const py::sequence& items, const DraftHead* head, bool confirm) {
  const std::vector<ExitCall> calls = parse_exits(items);
  const Work work = work_of(calls);
  std::vector<Exit> exits;
  ExitSeconds seconds;
  {
    const Using use(work);
    py::gil_scoped_release release;
    exits = engine.leave_early(drafter, predictors, calls, head, confirm, check_signals, seconds);
  }
  std::vector<std::tuple<int, int64_t, float>> found;
  for (const Exit& exit : exits) found.emplace_back(exit.layer, exit.token, exit.confidence);
  return py::make_tuple(found, seconds.draft, seconds.layers, seconds.head);
}

std::vector<std::vector<int>> rank(Engine& engine, Drafter& drafter, const py::sequence& items, int64_t k,
                                   const DraftHead* head) {
  const std::vector<RankCall> calls = parse_ranks(items);
  const Work work = work_of(calls);
  const Using use(work);
  const int count = narrow({k})[0];
  py::gil_scoped_release release;
  return engine.rank(drafter, calls, count, head);
}

Array<float> score(Engine& engine, const py::sequence& items, const std::vector<int64_t>& wide,
                   const Array<int64_t>& tokens) {
  const Work work = parse_work(items);
  if (tokens.ndim() != 2) throw RowError("candidates must be token ids of shape (rows, candidates)");
  const std::vector<int> layers = narrow(wide);
  std::vector<std::vector<int>> candidates;
  for (py::ssize_t row = 0; row < tokens.shape(0); ++row) {
    const int64_t* from = tokens.data() + row * tokens.shape(1);
    candidates.push_back(narrow({from, from + tokens.shape(1)}));
  }
  Array<float> out({tokens.shape(0), static_cast<py::ssize_t>(layers.size()), tokens.shape(1)});
  float* data = out.mutable_data();
  const Using use(work);
  py::gil_scoped_release release;
  engine.score(work, layers, candidates, data);
  return out;
}

// Rows keep their predictors alive, and so the engine.
py::object make_exit_rows(const Engine& engine, const py::object& predictors,
                          const std::vector<std::vector<int64_t>>& candidates) {
  std::vector<std::vector<int>> ids;
  for (const std::vector<int64_t>& row : candidates) ids.push_back(narrow(row));
  py::object made = py::cast(engine.exit_rows(predictors.cast<ExitPredictors&>(), ids));
  py::detail::keep_alive_impl(made, predictors);
  return made;
}

// (sequence, slots, rows, Sampling) each.
std::vector<std::pair<float, int64_t>> ask_exits(Engine& engine, ExitRows& rows, int64_t layer,
                                                 const py::sequence& items) {
  std::vector<AskCall> calls;
  Work work;
  for (const py::handle item : items) {
    const auto parts = item.cast<py::sequence>();
    calls.push_back({&parts[0].cast<Sequence&>(), narrow(parts[1].cast<std::vector<int64_t>>()),
                     narrow(parts[2].cast<std::vector<int64_t>>()), parse_sampling(parts[3])});
    work.push_back({calls.back().sequence, calls.back().slots});
  }
  const int at = narrow({layer})[0];
  std::vector<std::pair<float, int64_t>> found;
  const Using use(work);
  py::gil_scoped_release release;
  for (const Answer& answer : engine.ask_exits(rows, at, calls))
    found.emplace_back(answer.chance, answer.token);
  return found;
}

}  // namespace

void bind_early_exit(py::module_& m) {
  py::class_<ExitPredictors>(m, "ExitPredictors").def("set", &set_layer);
  const py::class_<ExitRows> exit_rows(m, "ExitRows");
  const py::object engine = m.attr("Engine");
  const auto add = [&](const char* name, py::cpp_function&& function) {
    engine.attr(name) = std::move(function);
  };
  const py::is_method method(engine);
  add("exit_predictors", py::cpp_function(&make_predictors, method, py::arg("candidates"), py::arg("width")));
  add("exit_rows", py::cpp_function(&make_exit_rows, method, py::arg("predictors"), py::arg("candidates")));
  add("ask_exits", py::cpp_function(&ask_exits, method, py::arg("rows"), py::arg("layer"), py::arg("calls")));
  add("leave_early", py::cpp_function(&leave_early, method, py::arg("drafter"), py::arg("predictors"),
                                      py::arg("calls"), py::arg("head"), py::arg("confirm")));
  add("rank",
      py::cpp_function(&rank, method, py::arg("drafter"), py::arg("calls"), py::arg("k"), py::arg("head")));
  add("score", py::cpp_function(&score, method, py::arg("work"), py::arg("layers"), py::arg("candidates")));
}

}  // namespace specee
