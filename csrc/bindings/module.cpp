// specee._cpu: checks arguments, converts buffers, releases the GIL, dispatches. Nothing else lives here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "bindings/buffers.h"
#include "bindings/busy.h"
#include "bindings/drafter.h"
#include "bindings/early_exit.h"
#include "bindings/errors.h"
#include "bindings/ops.h"
#include "bindings/parse.h"
#include "bindings/policy.h"
#include "bindings/rounds.h"
#include "bindings/sampling.h"
#include "bindings/sequence.h"
#include "bindings/work.h"
#include "cpu/bandwidth.h"
#include "cpu/engine.h"
#include "cpu/isa.h"
#include "specee/errors.h"

namespace py = pybind11;

namespace specee {
namespace {

WeightTypes parse_weight_types(const std::map<std::pair<std::string, int>, std::string>& names) {
  WeightTypes types;
  for (const auto& [key, name] : names) types[key] = parse_weight_type(name);
  return types;
}

RopeScaling parse_scaling(const std::string& name) {
  if (name == "none") return RopeScaling::none;
  if (name == "linear") return RopeScaling::linear;
  if (name == "llama3") return RopeScaling::llama3;
  throw ConfigurationError("rope scaling '" + name + "' is unknown: choose none, linear or llama3");
}

ModelConfig parse_config(const py::object& source) {
  ModelConfig c;
  const auto read = [&source](const char* name, auto& field) {
    field = source.attr(name).cast<std::decay_t<decltype(field)>>();
  };
  read("vocab_size", c.vocab_size);
  read("hidden_size", c.hidden_size);
  read("intermediate_size", c.intermediate_size);
  read("num_layers", c.num_layers);
  read("num_heads", c.num_heads);
  read("num_kv_heads", c.num_kv_heads);
  read("head_dim", c.head_dim);
  read("max_position", c.max_position);
  read("norm_eps", c.norm_eps);
  read("windows", c.windows);
  read("tied_head", c.tied_head);
  read("qkv_bias", c.qkv_bias);
  read("o_bias", c.o_bias);
  read("mlp_bias", c.mlp_bias);
  read("qk_norm", c.qk_norm);
  const py::object rope = source.attr("rope");
  c.rope.theta = rope.attr("theta").cast<double>();
  c.rope.scaling = parse_scaling(rope.attr("scaling").cast<std::string>());
  c.rope.factor = rope.attr("factor").cast<double>();
  c.rope.low_freq_factor = rope.attr("low_freq_factor").cast<double>();
  c.rope.high_freq_factor = rope.attr("high_freq_factor").cast<double>();
  c.rope.original_max_position = rope.attr("original_max_position").cast<int>();
  const auto [smallest, largest] =
      std::minmax({c.vocab_size, c.hidden_size, c.intermediate_size, c.num_layers, c.num_heads,
                   c.num_kv_heads, c.head_dim, c.max_position});
  const int64_t widest = static_cast<int64_t>(c.num_heads) * c.head_dim;
  if (smallest < 1 || largest > (1 << 24) || widest > (1 << 24) || c.num_heads % c.num_kv_heads != 0 ||
      c.head_dim % 2 != 0 || static_cast<int>(c.windows.size()) != c.num_layers)
    throw ConfigurationError(
        "the model's shape is inconsistent: sizes must be "
        "1 to 2^24, num_heads a multiple of num_kv_heads, "
        "head_dim even, and windows one entry a layer");
  return c;
}

void set_weight(Engine& engine, const std::string& role, int layer, int row_begin, const py::buffer& values,
                const std::string& format) {
  const py::buffer_info info = values.request();
  const WeightType source = parse_weight_type(format);
  const WeightRows rows = weight_rows_of(info, source, "tensor '" + role + "'");
  py::gil_scoped_release release;
  engine.weights().set(role, layer, row_begin, rows.rows, rows.columns, rows.data, source);
}

Array<float> weight_rows(Engine& engine, const std::string& role, int layer, int row_begin, int rows) {
  const int columns = engine.weights().columns(role, layer);
  Array<float> out({static_cast<py::ssize_t>(std::max(rows, 0)), static_cast<py::ssize_t>(columns)});
  engine.weights().read(role, layer, row_begin, rows, out.mutable_data());
  return out;
}

void advance(Engine& engine, const py::sequence& items, int to_layer) {
  const Work work = parse_work(items);
  const Using use(work);
  py::gil_scoped_release release;
  engine.advance(work, to_layer, check_signals);
}

Array<float> hidden(Engine& engine, const py::sequence& items) {
  const Work work = parse_work(items);
  Array<float> out(
      {static_cast<py::ssize_t>(count_rows(work)), static_cast<py::ssize_t>(engine.config().hidden_size)});
  float* data = out.mutable_data();
  const Using use(work);
  py::gil_scoped_release release;
  engine.hidden(work, data);
  return out;
}

Array<float> logits(Engine& engine, const py::sequence& items, const DraftHead* head) {
  const Work work = parse_work(items);
  Array<float> out(
      {static_cast<py::ssize_t>(count_rows(work)), static_cast<py::ssize_t>(engine.config().vocab_size)});
  float* data = out.mutable_data();
  const Using use(work);
  py::gil_scoped_release release;
  engine.logits(work, head, data);
  return out;
}

Array<int64_t> argmax(Engine& engine, const py::sequence& items) {
  const Work work = parse_work(items);
  Array<int64_t> out(static_cast<py::ssize_t>(count_rows(work)));
  int64_t* data = out.mutable_data();
  const Using use(work);
  py::gil_scoped_release release;
  engine.argmax(work, data);
  return out;
}

py::tuple topk(Engine& engine, const py::sequence& items, int64_t k) {
  engine.check_topk(k);  // before memory is asked for
  const Work work = parse_work(items);
  const py::ssize_t rows = static_cast<py::ssize_t>(count_rows(work)), columns = k;
  Array<int64_t> ids({rows, columns});
  Array<float> values({rows, columns});
  int64_t* id_data = ids.mutable_data();
  float* value_data = values.mutable_data();
  {
    const Using use(work);
    py::gil_scoped_release release;
    engine.topk(work, static_cast<int>(k), id_data, value_data);
  }
  return py::make_tuple(ids, values);
}

Array<int64_t> sample(Engine& engine, const py::sequence& items, const py::sequence& options) {
  const Work work = parse_work(items);
  const std::vector<Sampling> sampling = parse_samplings(options);
  Array<int64_t> out(static_cast<py::ssize_t>(count_rows(work)));
  int64_t* data = out.mutable_data();
  const Using use(work);
  py::gil_scoped_release release;
  engine.sample(work, sampling, data);
  return out;
}

py::tuple verify(Engine& engine, const py::sequence& items, const std::optional<py::sequence>& options) {
  const Work work = parse_work(items);
  std::vector<Sampling> sampling;
  if (options) sampling = parse_samplings(*options);
  std::vector<int64_t> tokens(count_rows(work));
  Engine::Seconds seconds;
  {
    const Using use(work);
    py::gil_scoped_release release;
    seconds = engine.verify(work, options ? &sampling : nullptr, check_signals, tokens.data());
  }
  return py::make_tuple(tokens, seconds.layers, seconds.head);
}

py::tuple draft(Engine& engine, const py::sequence& items, const py::sequence& options,
                const DraftHead* head) {
  const Work work = parse_work(items);
  const std::vector<Sampling> sampling = parse_samplings(options);
  const py::ssize_t rows = static_cast<py::ssize_t>(count_rows(work));
  Array<int64_t> tokens(rows);
  Array<float> confidences(rows);
  int64_t* token_data = tokens.mutable_data();
  float* confidence_data = confidences.mutable_data();
  {
    const Using use(work);
    py::gil_scoped_release release;
    engine.draft(work, sampling, head, token_data, confidence_data);
  }
  return py::make_tuple(tokens, confidences);
}

py::tuple shadow(Engine& engine, const py::sequence& items, const std::vector<int64_t>& wide,
                 const DraftHead* head) {
  const Work work = parse_work(items);
  const std::vector<int> layers = narrow(wide);
  const py::ssize_t rows = static_cast<py::ssize_t>(count_rows(work)),
                    columns = static_cast<py::ssize_t>(layers.size());
  Array<int64_t> tokens({rows, columns});
  Array<float> confidences({rows, columns});
  int64_t* token_data = tokens.mutable_data();
  float* confidence_data = confidences.mutable_data();
  {
    const Using use(work);
    py::gil_scoped_release release;
    engine.shadow(work, layers, head, token_data, confidence_data);
  }
  return py::make_tuple(tokens, confidences);
}

// The sequence keeps its engine alive.
py::object make_sequence(const py::object& self, int64_t capacity, const std::string& dtype, bool poison) {
  Engine& engine = self.cast<Engine&>();
  engine.check_capacity(capacity);
  const Dtype kv_dtype = parse_dtype(dtype);
  std::unique_ptr<Sequence> sequence;
  {
    py::gil_scoped_release release;  // the engine's lock is never awaited under Python's
    sequence = engine.sequence(static_cast<int>(capacity), kv_dtype, poison);
  }
  py::object made = py::cast(std::move(sequence));
  py::detail::keep_alive_impl(made, self);
  return made;
}

// norm, down, up of an adapter.
using AdapterArrays = std::tuple<Array<float>, Array<float>, Array<float>>;

std::unique_ptr<const Adapter> make_adapter(const AdapterArrays& arrays, py::ssize_t hidden) {
  const auto& [norm, down, up] = arrays;
  const bool matrices = down.ndim() == 2 && up.ndim() == 2 && down.shape(0) > 0 && down.shape(0) <= (1 << 24);
  if (!matrices || norm.ndim() != 1 || norm.shape(0) != hidden || down.shape(1) != hidden ||
      up.shape(0) != hidden || up.shape(1) != down.shape(0))
    throw ConfigurationError("an adapter of a model of hidden size " + std::to_string(hidden) +
                             " has norm (hidden,), down (width, hidden) and up (hidden, width)");
  return std::make_unique<Adapter>(static_cast<int>(hidden), static_cast<int>(down.shape(0)), norm.data(),
                                   down.data(), up.data());
}

// The head keeps its engine alive. `blocks`: rows for the vocabulary, which ascends then, and their format.
py::object make_draft_head(const py::object& self, const std::optional<AdapterArrays>& adapter,
                           const std::optional<std::vector<int64_t>>& vocabulary,
                           const std::optional<std::pair<py::buffer, std::string>>& blocks, bool normed) {
  Engine& engine = self.cast<Engine&>();
  std::optional<HeadBlocks> rows;
  py::buffer_info info;
  if (blocks) {
    const WeightType type = parse_weight_type(blocks->second);
    info = blocks->first.request();
    const WeightRows found = weight_rows_of(info, type, "the rows of a draft head");
    const PackedMatrix like(1, engine.config().hidden_size, type, "a draft head");
    if (!vocabulary || found.rows != static_cast<int>(vocabulary->size()) || found.columns != like.columns())
      throw ConfigurationError("a draft head in blocks needs a row of " + std::to_string(like.columns()) +
                               " bytes for each token of its vocabulary");
    rows = HeadBlocks{type, found.data};
  }
  std::unique_ptr<DraftHead> head;
  {
    py::gil_scoped_release release;
    head = engine.draft_head(adapter ? make_adapter(*adapter, engine.config().hidden_size) : nullptr,
                             vocabulary ? &*vocabulary : nullptr, rows ? &*rows : nullptr, normed);
  }
  py::object made = py::cast(std::move(head));
  py::detail::keep_alive_impl(made, self);
  return made;
}

// Seconds by step and barriers passed, for each member, since the last call; turns the watch on or off.
py::list costs(Engine& engine, bool watch) {
  constexpr const char* names[kCostSteps] = {"qkv",     "heads", "attention", "o",
                                             "gate_up", "down",  "head",      "wait"};
  py::list members;
  for (const Costs::Member& member : engine.costs().members()) {
    py::dict entry;
    for (size_t i = 0; i < kCostSteps; ++i)
      entry[names[i]] = static_cast<double>(member.nanoseconds[i]) / 1e9;
    entry["barriers"] = member.barriers;
    members.append(entry);
  }
  engine.costs().clear();
  engine.costs().enable(watch);
  return members;
}

py::tuple two_stages(Engine& engine) {
  Engine::TwoStages found;
  {
    const py::gil_scoped_release release;  // who has the engine may want the interpreter
    found = engine.two_stages();
  }
  return py::make_tuple(found.calls, found.reread);
}

Engine::Bytes bytes(Engine& engine) {
  const py::gil_scoped_release release;
  return engine.bytes();
}

void bind_engine(py::module_& m) {
  py::class_<DraftHead>(m, "DraftHead").def_property_readonly("bytes", &DraftHead::bytes);
  py::class_<Engine>(m, "Engine")
      .def(py::init([](const py::object& config,
                       const std::map<std::pair<std::string, int>, std::string>& formats,
                       const std::string& isa, int threads) {
             return std::make_unique<Engine>(parse_config(config), parse_weight_types(formats), isa, threads);
           }),
           py::arg("config"), py::arg("formats"), py::arg("isa"), py::arg("threads"))
      .def("set_weight", &set_weight)
      .def("weight_rows", &weight_rows)
      .def("complete", &Engine::complete, py::call_guard<py::gil_scoped_release>())
      .def("use_two_stages", &Engine::use_two_stages, py::arg("on"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("two_stages", &two_stages)
      .def_property_readonly("weight_bytes", [](Engine& engine) { return bytes(engine).weights; })
      .def_property_readonly("step_bytes", [](Engine& engine) { return bytes(engine).step; })
      .def_property_readonly("bytes_by_step", [](Engine& engine) { return bytes(engine).by_step; })
      .def_property_readonly("isa", &Engine::isa)
      .def_property_readonly("threads", &Engine::threads)
      .def("costs", &costs, py::arg("watch"))
      .def("sequence", &make_sequence)
      .def("cache_bytes_needed",
           [](const Engine& engine, int capacity, const std::string& dtype) {
             return KvCache::bytes_needed(engine.config(), capacity, parse_dtype(dtype));
           })
      .def("advance", &advance)
      .def("hidden", &hidden)
      .def("logits", &logits, py::arg("work"), py::arg("head") = py::none())
      .def("argmax", &argmax)
      .def("verify", &verify)
      .def("topk", &topk)
      .def("sample", &sample)
      .def("draft", &draft, py::arg("work"), py::arg("sampling"), py::arg("head") = py::none())
      .def("shadow", &shadow, py::arg("work"), py::arg("layers"), py::arg("head") = py::none())
      .def("draft_head", &make_draft_head, py::arg("adapter"), py::arg("vocabulary"),
           py::arg("blocks") = py::none(), py::arg("normed") = false);
}

double bandwidth_gb(size_t bytes, int threads, const std::string& isa) {
  py::gil_scoped_release release;
  return measure_bandwidth(select_kernels(isa), bytes, threads, 5) / 1e9;
}

}  // namespace
}  // namespace specee

PYBIND11_MODULE(_cpu, m) {
  using namespace specee;
  m.doc() =
      "specee's C++ engine: models, sequences and the kernels of this "
      "processor";
  register_errors();
  bind_sequence(m);
  bind_engine(m);
  bind_drafter(m);
  bind_early_exit(m);
  bind_rounds(m);
  bind_policy(m);
  bind_ops(m);
  m.def("compiled_isas", &compiled_isas, "Instruction sets in this build, slowest first");
  m.def("supported_isas", &supported_isas, "Those of compiled_isas() that this processor runs");
  m.def(
      "select_isa", [](const std::string& name) { return select_kernels(name).name; },
      "The named instruction set, or the fastest for ''; raises "
      "ConfigurationError");
  m.def("measure_bandwidth", &bandwidth_gb, py::arg("size"), py::arg("threads"), py::arg("isa") = "",
        "GB/s of the best of five read-only sweeps over `size` bytes");
}
