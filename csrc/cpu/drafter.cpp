#include "cpu/drafter.h"

#include <algorithm>
#include <cstring>

#include "specee/errors.h"

namespace specee {
namespace {

ModelConfig block_of(const ModelConfig& model, int inner) {
  ModelConfig block = model;
  block.vocab_size = 1;
  block.num_layers = 1;
  block.intermediate_size = inner;
  block.windows = {0};
  block.tied_head = true;
  block.qkv_bias = block.o_bias = block.mlp_bias = block.qk_norm = false;
  return block;
}

WeightTypes types_of(WeightType type) {
  WeightTypes types = {{{"embed", -1}, WeightType::f32}};
  for (const char* role : {"q", "k", "v", "o", "gate", "up", "down"}) types[{role, 0}] = type;
  return types;
}

std::vector<std::string> names_of(size_t layers) {
  std::vector<std::string> names = {"fuse", "fc", "embed_norm", "fused_norm", "attn_norm", "mlp_norm", "q",
                                    "k",    "v",  "o",          "gate",       "up",        "down"};
  for (size_t i = 0; i < layers; ++i) names.push_back("state_norms." + std::to_string(i));
  return names;
}

size_t rows_of(const ModelConfig& model) {
  return static_cast<size_t>(kMaxRows) * static_cast<size_t>(model.hidden_size);
}

}  // namespace

Drafter::Drafter(const ModelConfig& model, const ModelWeights& weights, const Kernels& kernels,
                 ThreadPool& pool, Drawing& drawing, const std::vector<int>& layers, int inner,
                 WeightType type)
    : model_(model),
      model_weights_(weights),
      kernels_(kernels),
      pool_(pool),
      drawing_(drawing),
      layers_(layers),
      block_(block_of(model, inner)),
      weights_(block_, types_of(type)),
      fuse_(model.hidden_size, static_cast<int>(layers.size()) * model.hidden_size, type, "a drafter's fuse"),
      fc_(model.hidden_size, 2 * model.hidden_size, type, "a drafter's fc"),
      state_norms_(layers.size(), std::vector<float>(static_cast<size_t>(model.hidden_size))),
      embed_norm_(static_cast<size_t>(model.hidden_size)),
      fused_norm_(static_cast<size_t>(model.hidden_size)),
      missing_(names_of(layers.size())),
      costs_(pool.size()),
      streams_(block_, weights_, pool.size()),
      forward_(block_, weights_, kernels, pool, costs_, streams_),
      forms_(forms_of(kernels, {&fuse_, &fc_})),
      inputs_(kernels, forms_, std::max(2, static_cast<int>(layers.size())) * model.hidden_size, pool.size()),
      embedded_(rows_of(model)),
      fused_(rows_of(model)),
      x_(rows_of(model)) {
  if (layers.empty() || layers.front() < 1 || layers.back() > model.num_layers ||
      std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<int>()) != layers.end())
    throw ConfigurationError("a drafter reads layers of 1 to " + std::to_string(model.num_layers) +
                             ", at least one, ascending, each once");
}

size_t Drafter::bytes() const {
  size_t total = fuse_.bytes() + fc_.bytes();
  for (const auto& [step, bytes] : weights_.bytes_by_step())
    if (step != "head") total += bytes;
  return total;
}

std::vector<float>* Drafter::vector_of(const std::string& name) {
  if (name == "embed_norm") return &embed_norm_;
  if (name == "fused_norm") return &fused_norm_;
  for (size_t i = 0; i < state_norms_.size(); ++i)
    if (name == "state_norms." + std::to_string(i)) return &state_norms_[i];
  return nullptr;
}

PackedMatrix* Drafter::matrix_of(const std::string& name) {
  if (name == "fuse") return &fuse_;
  return name == "fc" ? &fc_ : nullptr;
}

void Drafter::set(const std::string& name, int rows, int columns, const void* values, WeightType source) {
  const auto place = std::find(missing_.begin(), missing_.end(), name);
  if (place == missing_.end())
    throw CheckpointError("a drafter has no part '" + name +
                          "', or it was given before: give each part once");
  std::vector<float>* vector = vector_of(name);
  PackedMatrix* matrix = matrix_of(name);
  if (vector == nullptr && matrix == nullptr) {
    weights_.set(name, 0, 0, rows, columns, values, source);
  } else {
    const int wanted_rows = matrix != nullptr ? matrix->outputs() : static_cast<int>(vector->size());
    const int wanted_columns = matrix != nullptr ? matrix->columns() : 1;
    const bool takes = matrix != nullptr ? matrix->takes(source) : !is_quantised(source);
    if (rows != wanted_rows || columns != wanted_columns || !takes)
      throw CheckpointError("part '" + name + "' of a drafter came as " + std::to_string(rows) + " rows of " +
                            std::to_string(columns) + " in " + weight_type_name(source) + ", and has " +
                            std::to_string(wanted_rows) + " of " + std::to_string(wanted_columns));
    if (matrix != nullptr) {
      matrix->set_rows({}, 0, rows, values, source);
    } else {
      for (int i = 0; i < rows; ++i)
        (*vector)[static_cast<size_t>(i)] = element(values, source, static_cast<size_t>(i));
    }
  }
  missing_.erase(place);
}

void Drafter::check_complete() const {
  if (!missing_.empty())
    throw CheckpointError("part '" + missing_.front() + "' of a drafter is missing (" +
                          std::to_string(missing_.size()) + " in all): give every part");
}

std::unique_ptr<DrafterColumn> Drafter::column(int capacity, Dtype dtype) {
  forward_.reserve(capacity);
  return std::make_unique<DrafterColumn>(block_, capacity, dtype);
}

void Drafter::check(const ChainCall& call) const {
  const Sequence& sequence = *call.sequence;
  const int newest = sequence.length() - 1;
  if (call.length < 1)
    throw RowError("a chain of " + std::to_string(call.length) + " drafts: give 1 or more");
  if (!sequence.speculative().empty())
    throw RowError("a drafter drafts from the text alone: commit or drop the speculative rows first");
  if (newest < 1 || sequence.row(newest).done != 0 || sequence.row(newest - 1).done != model_.num_layers ||
      sequence.kept() < 1)
    throw RowError(
        "a drafter needs the states of the position before the newest one, which alone waits to be computed: "
        "keep() the layers that it reads, and advance all positions but the last");
  for (const int layer : layers_) sequence.kept_state(newest - 1, layer);
  if (newest + call.length > call.column->capacity())
    throw RowError("a drafter's column of " + std::to_string(call.column->capacity()) +
                   " positions has no room for " + std::to_string(call.length) + " drafts behind position " +
                   std::to_string(newest) + ": make it as long as the sequence");
}

// The newest entry is made anew each time: what it gives is where drafts begin.
void Drafter::catch_up(const std::vector<ChainCall>& calls, std::vector<std::vector<float>>& newest) {
  std::vector<Entry> entries;
  std::vector<float> unused(static_cast<size_t>(model_.hidden_size));
  for (size_t i = 0; i < calls.size(); ++i) {
    const Sequence& sequence = *calls[i].sequence;
    DrafterColumn& column = *calls[i].column;
    const int last = sequence.length() - 1;
    const int able = last - sequence.kept() + 1;  // the first position whose states before it are kept
    int same = 0;
    while (same < column.length() && column.first_ + same < last &&
           column.tokens_[static_cast<size_t>(same)] == sequence.row(column.first_ + same).token)
      ++same;
    column.tokens_.resize(static_cast<size_t>(same));
    if (column.first_ + same < able || column.first_ > last) {  // a gap, or nothing of it is left
      column.tokens_.clear();
      column.first_ = able;
    }
    for (int position = column.first_ + column.length(); position <= last; ++position) {
      const int token = sequence.row(position).token;
      column.tokens_.push_back(token);
      entries.push_back({&column, position - column.first_, token, &sequence, nullptr,
                         position == last ? newest[i].data() : unused.data()});
    }
  }
  run(entries);
}

void Drafter::run(const std::vector<Entry>& entries) {
  for (size_t begin = 0; begin < entries.size(); begin += kMaxRows) {
    const int rows = static_cast<int>(std::min(entries.size() - begin, static_cast<size_t>(kMaxRows)));
    project(entries.data() + begin, rows);
    std::vector<PassRow> pass;
    for (int r = 0; r < rows; ++r) {
      const Entry& entry = entries[begin + static_cast<size_t>(r)];
      pass.push_back({&entry.column->cache(),
                      entry.slot,
                      entry.slot,
                      entry.slot + 1,
                      {},
                      0,
                      x_.data() + static_cast<ptrdiff_t>(r) * model_.hidden_size});
    }
    forward_.run(pass, 1);
    for (int r = 0; r < rows; ++r)
      std::memcpy(entries[begin + static_cast<size_t>(r)].out, pass[static_cast<size_t>(r)].hidden,
                  static_cast<size_t>(model_.hidden_size) * sizeof(float));
  }
}

// x = fc [norm(embedding of the token), norm(fused states, or what the drafter gave itself)]
void Drafter::project(const Entry* entries, int rows) {
  const int size = model_.hidden_size, layers = static_cast<int>(layers_.size());
  const auto row_of = [size](std::vector<float>& of, int r) {
    return of.data() + static_cast<ptrdiff_t>(r) * size;
  };
  const bool fuses =
      std::any_of(entries, entries + rows, [](const Entry& entry) { return entry.states != nullptr; });
  for (int r = 0; r < rows; ++r) model_weights_.embed().read_row(entries[r].token, row_of(embedded_, r));
  pool_.run([&](Team& team) {
    const auto norm = [&](const float* from, const std::vector<float>& weight, float* to) {
      kernels_.rms_norm(from, weight.data(), model_.norm_eps, size, to);
    };
    if (fuses) {
      const InputRows states = inputs_.prepare(team, rows, layers * size, forms_, [&](int r, float* x) {
        for (int i = 0; i < layers; ++i, x += size) {
          const Entry& entry = entries[r];
          if (entry.states == nullptr) {
            std::fill_n(x, size, 0.0f);
            continue;
          }
          const int before = entry.column->first_ + entry.slot - 1;
          norm(entry.states->kept_state(before, layers_[static_cast<size_t>(i)]),
               state_norms_[static_cast<size_t>(i)], x);
        }
      });
      multiply(team, fuse_, states, rows, fused_.data());
      team.barrier();
    }
    const InputRows both = inputs_.prepare(team, rows, 2 * size, forms_, [&](int r, float* x) {
      const float* before = entries[r].states == nullptr ? entries[r].before : row_of(fused_, r);
      norm(row_of(embedded_, r), embed_norm_, x);
      norm(before, fused_norm_, x + size);
    });
    multiply(team, fc_, both, rows, x_.data());
    team.barrier();
  });
}

void Drafter::multiply(Team& team, const PackedMatrix& matrix, const InputRows& inputs, int rows,
                       float* y) const {
  const LinearCall call =
      linear_call(kernels_, matrix, inputs, rows, matrix.outputs(), y, matrix.outputs(), Epilogue::store);
  run_share(kernels_, matrix, call, share_blocks(team.index(), team.size(), matrix, Epilogue::store),
            nullptr);
}

std::vector<Chain> Drafter::draft(const std::vector<ChainCall>& calls, const DraftHead* head) {
  for (const ChainCall& call : calls) check(call);
  const size_t size = static_cast<size_t>(model_.hidden_size);
  std::vector<std::vector<float>> states(calls.size(), std::vector<float>(size));
  catch_up(calls, states);
  std::vector<Chain> chains(calls.size());
  std::vector<size_t> open(calls.size());
  for (size_t i = 0; i < calls.size(); ++i) open[i] = i;
  while (!open.empty()) {
    std::vector<const float*> hidden;
    std::vector<Draw> draws;
    for (const size_t i : open) {
      const Sequence& sequence = *calls[i].sequence;
      hidden.push_back(states[i].data());
      draws.push_back(
          {calls[i].sampling, static_cast<uint64_t>(sequence.length()) + chains[i].tokens.size(), {}});
      if (!calls[i].sampling.penalised()) continue;
      std::vector<int>& path = draws.back().path;
      path = sequence.distinct_tokens(sequence.length() - 1);
      path.insert(path.end(), chains[i].tokens.begin(), chains[i].tokens.end());
      std::sort(path.begin(), path.end());
      path.erase(std::unique(path.begin(), path.end()), path.end());
    }
    std::vector<int64_t> tokens(open.size());
    std::vector<float> confidences(open.size());
    drawing_.draw(hidden, draws, head, tokens.data(), confidences.data());
    std::vector<size_t> still;
    std::vector<Entry> entries;
    for (size_t j = 0; j < open.size(); ++j) {
      const size_t i = open[j];
      const ChainCall& call = calls[i];
      chains[i].tokens.push_back(tokens[j]);
      chains[i].confidences.push_back(confidences[j]);
      const int made = static_cast<int>(chains[i].tokens.size());
      if (made == call.length || confidences[j] < call.stop_below) continue;
      still.push_back(i);
      // Drafts stand behind the true entries, which do not know of them.
      entries.push_back({call.column, call.column->length() - 1 + made, static_cast<int>(tokens[j]), nullptr,
                         states[i].data(), states[i].data()});
    }
    if (!entries.empty()) run(entries);
    open = std::move(still);
  }
  return chains;
}

}  // namespace specee
