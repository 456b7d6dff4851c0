#include "bindings/policy.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "policy/exit_choice.h"
#include "policy/exit_drafts.h"
#include "specee/errors.h"

namespace py = pybind11;

namespace specee {
namespace {

using policy::ExitChoice;
using policy::ExitDrafts;
using policy::ExitPlan;
using policy::RoundCosts;

// Python's lists as arrays.
struct DraftList {
  std::unique_ptr<bool[]> matches;
  std::vector<double> confidences;

  DraftList(const py::sequence& right, const py::sequence& sure)
      : matches(new bool[right.size()]), confidences(sure.size()) {
    if (right.size() != sure.size())
      throw ConfigurationError(std::to_string(right.size()) + " drafts were right or wrong, and " +
                               std::to_string(sure.size()) + " were sure: there is one confidence each");
    for (size_t i = 0; i < confidences.size(); ++i) {
      matches[i] = item<bool>(right, i, "right or wrong is a bool");
      confidences[i] = item<double>(sure, i, "a confidence is a number");
    }
  }
  template <class T>
  static T item(const py::sequence& items, size_t i, const char* wanted) {
    try {
      return items[i].cast<T>();
    } catch (const py::cast_error&) {
      throw ConfigurationError("draft " + std::to_string(i) + " has " +
                               py::repr(items[i]).cast<std::string>() + ": " + wanted);
    }
  }
  policy::Drafts view() const {
    return {matches.get(), confidences.data(), static_cast<int>(confidences.size())};
  }
};

using Costs = std::shared_ptr<RoundCosts>;

bool learn(ExitChoice& choice, int layer, const py::sequence& matches, const py::sequence& confidences,
           double now, std::optional<int> drafted) {
  const DraftList drafts(matches, confidences);
  return choice.learn(layer, drafts.view(), now, drafted.value_or(drafts.view().count));
}

py::object best(ExitChoice& choice, const Costs& costs, double now) {
  const std::optional<ExitPlan> plan = choice.best(costs, now);
  if (!plan) return py::none();
  return py::make_tuple(plan->layer, plan->length, plan->stop_below, plan->value);
}

py::tuple worth_a_look(ExitChoice& choice, const Costs& costs, double now, double at_least, int most) {
  return py::tuple(py::cast(choice.worth_a_look(costs, now, at_least, most)));
}

// (adapted, layer, length, stop_below, value)
py::object draft(ExitDrafts& exits, const Costs& costs, double now, double beside) {
  const std::optional<ExitDrafts::Draft> found = exits.draft(costs, now, beside);
  if (!found) return py::none();
  const ExitPlan& plan = found->plan;
  return py::make_tuple(found->adapted, plan.layer, plan.length, plan.stop_below, plan.value);
}

// (adapted, layers)
py::object look(ExitDrafts& exits, const Costs& costs, const Costs& seconds, int length, int remaining,
                bool fresh, double now, double value) {
  const std::optional<ExitDrafts::Look> found =
      exits.look(costs, *seconds, {length, remaining, fresh}, now, value);
  if (!found) return py::none();
  return py::make_tuple(found->adapted, py::tuple(py::cast(found->layers)));
}

template <bool (ExitDrafts::*Method)(bool, int, const policy::Drafts&, double, int)>
bool take_in(ExitDrafts& exits, bool adapted, int layer, const py::sequence& matches,
             const py::sequence& confidences, double now, std::optional<int> drafted) {
  const DraftList drafts(matches, confidences);
  return (exits.*Method)(adapted, layer, drafts.view(), now, drafted.value_or(drafts.view().count));
}

}  // namespace

void bind_policy(py::module_& m) {
  // Shared: choices keep the costs that they were made for.
  py::class_<RoundCosts, std::shared_ptr<RoundCosts>>(m, "RoundCosts")
      .def(py::init<int, int, const std::vector<double>&, const std::vector<double>&, double,
                    const std::vector<double>&>(),
           py::arg("layers"), py::arg("sequences"), py::arg("layer"), py::arg("head"), py::arg("step"),
           py::arg("looks"));
  py::class_<ExitChoice>(m, "ExitChoice")
      .def(py::init<const ExitDrafts::Heads&>(), py::arg("heads"))
      .def("learn", &learn, py::arg("layer"), py::arg("matches"), py::arg("confidences"), py::arg("now"),
           py::arg("drafted") = py::none())
      .def("best", &best, py::arg("costs").none(false), py::arg("now"))
      .def("worth_a_look", &worth_a_look, py::arg("costs").none(false), py::arg("now"), py::arg("at_least"),
           py::arg("most"))
      .def("known_of", &ExitChoice::known_of, py::arg("layer"), py::arg("now"));
  py::class_<ExitDrafts>(m, "ExitDrafts")
      .def(py::init<const std::vector<std::pair<bool, ExitDrafts::Heads>>&, int, double>(), py::arg("kinds"),
           py::arg("positions"), py::arg("gain"))
      .def("draft", &draft, py::arg("costs").none(false), py::arg("now"), py::arg("beside"))
      .def("look", &look, py::arg("costs").none(false), py::arg("seconds").none(false), py::arg("length"),
           py::arg("remaining"), py::arg("fresh"), py::arg("now"), py::arg("value"))
      .def("learn", &take_in<&ExitDrafts::learn>, py::arg("adapted"), py::arg("layer"), py::arg("matches"),
           py::arg("confidences"), py::arg("now"), py::arg("drafted"))
      .def("see", &take_in<&ExitDrafts::see>, py::arg("adapted"), py::arg("layer"), py::arg("matches"),
           py::arg("confidences"), py::arg("now"), py::arg("drafted"))
      .def("saw", &ExitDrafts::saw, py::arg("tokens"))
      .def("note", &ExitDrafts::note, py::arg("seconds"), py::arg("shadow"), py::arg("drafting"))
      .def("known_of", &ExitDrafts::known_of, py::arg("adapted"), py::arg("layer"), py::arg("now"))
      .def_property_readonly("look_at", &ExitDrafts::look_at)
      .def_property_readonly("near", &ExitDrafts::near);
}

}  // namespace specee
