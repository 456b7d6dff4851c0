#include "cpu/drafter_block.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "specee/errors.h"

namespace specee {
namespace {

std::vector<int> checked(const std::vector<int>& layers, const ModelConfig& model, bool plain) {
  if (layers.empty() || layers.front() < 1 || layers.back() > model.num_layers ||
      std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<int>()) != layers.end())
    throw ConfigurationError("a drafter reads layers of 1 to " + std::to_string(model.num_layers) +
                             ", at least one, ascending, each once");
  if (plain && layers.size() != 1)
    throw ConfigurationError("a plain drafter reads one layer, and not " + std::to_string(layers.size()));
  return layers;
}

ModelConfig block_of(const ModelConfig& model, int inner, bool plain) {
  ModelConfig block = model;
  block.vocab_size = 1;
  block.num_layers = 1;
  block.intermediate_size = inner;
  block.windows = {0};
  block.tied_head = true;
  block.qkv_bias = block.o_bias = block.mlp_bias = block.qk_norm = false;
  block.attn_norm = !plain;
  return block;
}

WeightTypes types_of(WeightType type) {
  WeightTypes types = {{{"embed", -1}, WeightType::f32}};
  for (const char* role : {"q", "k", "v", "o", "gate", "up", "down"}) types[{role, 0}] = type;
  return types;
}

size_t all_rows(const ModelConfig& model) {
  return static_cast<size_t>(kMaxRows) * static_cast<size_t>(model.hidden_size);
}

}  // namespace

DrafterBlock::DrafterBlock(const ModelConfig& model, const ModelWeights& weights, const Kernels& kernels,
                           ThreadPool& pool, const std::vector<int>& layers, int inner, WeightType type,
                           bool plain)
    : model_(model),
      embed_(weights.embed()),
      kernels_(kernels),
      pool_(pool),
      layers_(checked(layers, model, plain)),
      plain_(plain),
      config_(block_of(model, inner, plain)),
      weights_(config_, types_of(type)),
      fc_(model.hidden_size, 2 * model.hidden_size, type, "a drafter's fc"),
      state_norms_(layers.size(), std::vector<float>(static_cast<size_t>(model.hidden_size))),
      costs_(pool.size()),
      streams_(config_, weights_, pool.size()),
      forward_(config_, weights_, kernels, pool, costs_, streams_),
      forms_(forms_of(kernels, {&fc_})),
      inputs_(kernels, forms_, std::max(2, static_cast<int>(layers.size())) * model.hidden_size, pool.size()),
      embedded_(all_rows(model)),
      fused_(all_rows(model)),
      x_(all_rows(model)) {
  parts_["fc"] = {&fc_, nullptr};
  if (plain) {
    parts_["fc_bias"] = {&fc_, nullptr, true};
  } else {
    const size_t size = static_cast<size_t>(model.hidden_size);
    fuse_ = PackedMatrix(model.hidden_size, static_cast<int>(layers.size()) * model.hidden_size, type,
                         "a drafter's fuse");
    embed_norm_.resize(size);
    fused_norm_.resize(size);
    parts_["fuse"] = {&fuse_, nullptr};
    parts_["embed_norm"] = {nullptr, &embed_norm_};
    parts_["fused_norm"] = {nullptr, &fused_norm_};
  }
  for (size_t i = 0; i < state_norms_.size(); ++i)
    parts_["state_norms." + std::to_string(i)] = {nullptr, &state_norms_[i]};
  weights_.set("embed", -1, 0, 1, model.hidden_size, embedded_.data(), WeightType::f32);
  weights_.set("final_norm", -1, 0, model.hidden_size, 1, embedded_.data(), WeightType::f32);
}

size_t DrafterBlock::bytes() const {
  size_t total = fuse_.bytes() + fc_.bytes();
  for (const auto& [step, bytes] : weights_.bytes_by_step())
    if (step != "head") total += bytes;
  return total;
}

void DrafterBlock::set(const std::string& name, int rows, int columns, const void* values,
                       WeightType source) {
  const auto own = parts_.find(name);
  if (own == parts_.end())
    weights_.set(name, 0, 0, rows, columns, values, source);
  else
    set(own->second, name, rows, columns, values, source);
}

void DrafterBlock::set(Part& part, const std::string& name, int rows, int columns, const void* values,
                       WeightType source) {
  const bool matrix = part.matrix != nullptr && !part.bias;
  const int wanted_rows =
      part.matrix != nullptr ? part.matrix->outputs() : static_cast<int>(part.vector->size());
  const int wanted_columns = matrix ? part.matrix->columns() : 1;
  if (part.given || rows != wanted_rows || columns != wanted_columns ||
      !(matrix ? part.matrix->takes(source) : !is_quantised(source)))
    throw CheckpointError("part '" + name + "' of a drafter came as " + std::to_string(rows) + " rows of " +
                          std::to_string(columns) + " in " + weight_type_name(source) + "; it has " +
                          std::to_string(wanted_rows) + " of " + std::to_string(wanted_columns) +
                          ", to be given once");
  if (matrix)
    part.matrix->set_rows({}, 0, rows, values, source);
  else if (part.bias)
    part.matrix->set_bias({}, 0, rows, values, source);
  else
    for (size_t i = 0; i < part.vector->size(); ++i) (*part.vector)[i] = element(values, source, i);
  part.given = true;
}

void DrafterBlock::check_complete() const {
  for (const auto& [name, part] : parts_)
    if (!part.given)
      throw CheckpointError("part '" + name + "' of a drafter is missing: give every part once");
  weights_.check_complete();
}

void DrafterBlock::run(const std::vector<Row>& rows) {
  const size_t bytes = static_cast<size_t>(model_.hidden_size) * sizeof(float);
  for (size_t begin = 0; begin < rows.size(); begin += kMaxRows) {
    const Row* own = rows.data() + begin;
    const int count = static_cast<int>(std::min(rows.size() - begin, static_cast<size_t>(kMaxRows)));
    project(own, count);
    std::vector<PassRow> pass;
    for (int r = 0; r < count; ++r) {
      float* state = x_.data() + static_cast<ptrdiff_t>(r) * model_.hidden_size;
      const int length = static_cast<int>(own[r].path.size());
      const int position = length > 0 ? own[r].identity + length - 1 : own[r].slot;
      const int identity = length > 0 ? own[r].identity : own[r].slot + 1;
      pass.push_back({own[r].cache, own[r].slot, position, identity, own[r].path, 0, state});
    }
    forward_.run(pass, 1);
    for (int r = 0; r < count; ++r) std::memcpy(own[r].out, pass[static_cast<size_t>(r)].hidden, bytes);
  }
}

// x = fc [norm(embedding of the token), norm(fused states, or what the block gave itself)]; a plain block has
// fc [embedding, normed state, or what the block gave itself] + bias.
void DrafterBlock::project(const Row* rows, int count) {
  const int size = model_.hidden_size, layers = static_cast<int>(layers_.size());
  const auto at = [size](std::vector<float>& of, int r) {
    return of.data() + static_cast<ptrdiff_t>(r) * size;
  };
  for (int r = 0; r < count; ++r) embed_.read_row(rows[r].token, at(embedded_, r));
  const bool fuses = !plain_ && !rows[0].states.empty();
  pool_.run([&](Team& team) {
    if (fuses) {
      const InputRows states = inputs_.prepare(team, count, layers * size, forms_, [&](int r, float* x) {
        for (size_t i = 0; i < layers_.size(); ++i, x += size) norm(rows[r].states[i], state_norms_[i], x);
      });
      multiply(team, fuse_, states, count, fused_.data());
      team.barrier();
    }
    const InputRows both = inputs_.prepare(team, count, 2 * size, forms_, [&](int r, float* x) {
      if (plain_) return gather(rows[r], at(embedded_, r), x);
      norm(at(embedded_, r), embed_norm_, x);
      norm(fuses ? at(fused_, r) : rows[r].before, fused_norm_, x + size);
    });
    multiply(team, fc_, both, count, x_.data());
    team.barrier();
  });
}

// [embedding, state]: what the block gave itself stands for a state behind its norm.
void DrafterBlock::gather(const Row& row, const float* embedding, float* both) const {
  const size_t bytes = static_cast<size_t>(model_.hidden_size) * sizeof(float);
  std::memcpy(both, embedding, bytes);
  if (row.states.empty())
    std::memcpy(both + model_.hidden_size, row.before, bytes);
  else
    norm(row.states[0], state_norms_[0], both + model_.hidden_size);
}

void DrafterBlock::norm(const float* from, const std::vector<float>& weight, float* to) const {
  kernels_.rms_norm(from, weight.data(), model_.norm_eps, model_.hidden_size, to);
}

void DrafterBlock::multiply(Team& team, const PackedMatrix& matrix, const InputRows& inputs, int rows,
                            float* y) const {
  const LinearCall call =
      linear_call(kernels_, matrix, inputs, rows, matrix.outputs(), y, matrix.outputs(), Epilogue::store);
  run_share(kernels_, matrix, call, share_blocks(team.index(), team.size(), matrix, Epilogue::store),
            nullptr);
}

}  // namespace specee
