#include "graph/builder.h"

#include <algorithm>
#include <optional>

#include "graph/condition_ptx.h"
#include "specee/condition_batch.h"
#include "specee/errors.h"

namespace specee::graph {
namespace {

// A graph and everything in it, bodies included, until it goes out of scope.
class OwnedGraph {
 public:
  explicit OwnedGraph(const Driver& driver) : driver_(driver) {
    driver_.check(driver_->graph_create(&graph_, 0), "creating a graph");
  }
  OwnedGraph(const OwnedGraph&) = delete;
  OwnedGraph& operator=(const OwnedGraph&) = delete;
  ~OwnedGraph() { driver_->graph_destroy(graph_); }
  Graph get() const { return graph_; }

 private:
  const Driver& driver_;
  Graph graph_ = nullptr;
};

class Builder {
 public:
  Builder(const Driver& driver, Function set_conditions, int conditionals)
      : driver_(driver),
        set_conditions_(set_conditions),
        context_(driver.context()),
        handles_(static_cast<size_t>(conditionals)) {}

  // Puts steps into an empty graph, each after the one before it.
  void fill(Graph graph, const std::vector<Step>& steps) {
    // A condition belongs to the graph that its node is in, and is set there before the node.
    for (const Step& step : steps)
      if (const auto* conditional = std::get_if<Conditional>(&step.what)) create(graph, conditional->number);
    Node last = nullptr;
    for (const Step& step : steps)
      std::visit([&](const auto& what) { last = add(graph, last, what); }, step.what);
  }

  // Throws unless every conditional was there.
  void finish() const {
    const auto missing = std::find(handles_.begin(), handles_.end(), std::nullopt);
    if (missing != handles_.end())
      throw ConfigurationError("conditional " + std::to_string(missing - handles_.begin()) +
                               " is not in the program: number them from 0 on, without gaps");
  }

 private:
  std::optional<Handle>& slot(int number) {
    if (number < 0 || number >= static_cast<int>(handles_.size()))
      throw ConfigurationError("conditional " + std::to_string(number) + ": the program has " +
                               std::to_string(handles_.size()) + ", numbered from 0 on");
    return handles_[static_cast<size_t>(number)];
  }

  void create(Graph graph, int number) {
    std::optional<Handle>& handle = slot(number);
    if (handle)
      throw ConfigurationError("conditional " + std::to_string(number) +
                               " is in the program twice: each needs a number of its own");
    Handle made = 0;
    driver_.check(driver_->create_handle(&made, graph, context_, 0, 0), "creating a condition");
    handle = made;
  }

  Node kernel(Graph graph, Node last, KernelNode parameters) {
    Node node = nullptr;
    driver_.check(driver_->add_kernel(&node, graph, &last, last != nullptr ? 1 : 0, &parameters),
                  "adding a kernel to a graph");
    return node;
  }

  Node add(Graph graph, Node last, const Launch& launch) {
    // The driver copies what these point to.
    std::vector<std::vector<unsigned char>> values = launch.arguments;
    std::vector<void*> places(values.size());
    std::transform(values.begin(), values.end(), places.begin(), [](auto& value) { return value.data(); });
    KernelNode parameters;
    parameters.function = launch.function;
    std::copy(launch.grid, launch.grid + 3, parameters.grid);
    parameters.block[0] = launch.threads;
    parameters.block[1] = parameters.block[2] = 1;
    parameters.shared_bytes = launch.shared_bytes;
    parameters.arguments = places.data();
    return kernel(graph, last, parameters);
  }

  Node add(Graph graph, Node last, const SetConditions& set) {
    for (size_t first = 0; first < set.conditions.size(); first += kConditionBatch) {
      const size_t count = std::min<size_t>(kConditionBatch, set.conditions.size() - first);
      ConditionBatch batch = {};
      batch.count = static_cast<int32_t>(count);
      for (size_t i = 0; i < count; ++i) {
        const SetCondition& one = set.conditions[first + i];
        const std::optional<Handle>& handle = slot(one.conditional);
        if (!handle)
          throw ConfigurationError("conditional " + std::to_string(one.conditional) +
                                   " is set outside of the body that it is in");
        batch.handles[i] = *handle;
        batch.values[i] = reinterpret_cast<const int32_t*>(one.value);
      }
      void* argument = &batch;
      KernelNode parameters;
      parameters.function = set_conditions_;
      std::fill(parameters.grid, parameters.grid + 3, 1u);
      parameters.block[0] = kConditionBatch;
      parameters.block[1] = parameters.block[2] = 1;
      parameters.arguments = &argument;
      last = kernel(graph, last, parameters);
    }
    return last;
  }

  Node add(Graph graph, Node last, const Conditional& conditional) {
    NodeParameters parameters = {};
    parameters.kind = kConditionalNode;
    parameters.conditional.handle = *slot(conditional.number);
    parameters.conditional.kind = conditional.repeats ? kWhile : kIf;
    parameters.conditional.size = 1;
    parameters.conditional.context = context_;
    Node node = nullptr;
    driver_.check(driver_->add_node(&node, graph, &last, nullptr, last != nullptr ? 1 : 0, &parameters),
                  "adding a conditional node to a graph");
    fill(parameters.conditional.bodies[0], conditional.body);
    return node;
  }

  const Driver& driver_;
  Function set_conditions_;
  Context context_;
  std::vector<std::optional<Handle>> handles_;  // by number, as far as their graphs have been begun
};

const SharedDriver& able(const SharedDriver& driver) {
  if (!driver->conditional_missing().empty())
    throw BackendUnavailableError("no graph with conditions: " + driver->conditional_missing() +
                                  "; kernels can be launched one by one instead");
  return driver;
}

}  // namespace

RoundGraph::RoundGraph(SharedDriver driver, const Program& program)
    : driver_(able(driver)), context_(driver_->context()) {
  if (program.conditionals > 0) conditions_.emplace(driver_, kConditionPtx);
  const Function set_conditions = conditions_ ? conditions_->function("set_conditions") : nullptr;
  const OwnedGraph graph(*driver_);
  Builder builder(*driver_, set_conditions, program.conditionals);
  builder.fill(graph.get(), program.steps);
  builder.finish();
  driver_->check((*driver_)->instantiate(&executable_, graph.get(), 0), "instantiating a graph");
}

RoundGraph::~RoundGraph() { (*driver_)->executable_destroy(executable_); }

void RoundGraph::upload(Stream stream) const {
  const InContext in(*driver_, context_);
  driver_->check((*driver_)->graph_upload(executable_, stream), "uploading a graph");
}

void RoundGraph::launch(Stream stream) const {
  const InContext in(*driver_, context_);
  driver_->check((*driver_)->graph_launch(executable_, stream), "launching a graph");
}

}  // namespace specee::graph
