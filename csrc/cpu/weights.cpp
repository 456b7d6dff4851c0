#include "cpu/weights.h"

#include "specee/errors.h"

namespace specee {

ModelWeights::ModelWeights(const ModelConfig& c, Dtype format)
    : format_(format),
      tied_(c.tied_head),
      embed_(c.vocab_size, c.hidden_size, format, "the embedding"),
      final_norm_(static_cast<size_t>(c.hidden_size)),
      layers_(static_cast<size_t>(c.num_layers)) {
  if (!tied_) head_ = PackedMatrix(c.vocab_size, c.hidden_size, format, "the head");
  const size_t hidden = static_cast<size_t>(c.hidden_size), head_dim = static_cast<size_t>(c.head_dim);
  for (LayerWeights& layer : layers_) {
    layer.attn_norm.resize(hidden);
    layer.mlp_norm.resize(hidden);
    layer.q_norm.resize(c.qk_norm ? head_dim : 0);
    layer.k_norm.resize(c.qk_norm ? head_dim : 0);
    layer.qkv = PackedMatrix(c.q_dim() + 2 * c.kv_dim(), c.hidden_size, format, "a layer's q, k, v");
    layer.o = PackedMatrix(c.hidden_size, c.q_dim(), format, "a layer's o");
    // Padding each half to whole blocks keeps gate and up of one output in neighbouring blocks.
    layer.gate_up =
        PackedMatrix(2 * round_up(c.intermediate_size, kLanes), c.hidden_size, format, "a layer's gate, up");
    layer.down = PackedMatrix(c.hidden_size, c.intermediate_size, format, "a layer's down");
  }
  list_targets(c);
}

void ModelWeights::list_targets(const ModelConfig& c) {
  const auto matrix = [](const char* role, PackedMatrix& m, Placement placement, int rows) {
    return Target{role, &m, nullptr, false, placement, rows, m.k(), 0};
  };
  const auto bias = [](const char* role, PackedMatrix& m, Placement placement, int rows) {
    return Target{role, &m, nullptr, true, placement, rows, 1, 0};
  };
  const auto vector = [](const char* role, std::vector<float>& v) {
    return Target{role, nullptr, &v, false, {}, static_cast<int>(v.size()), 1, 0};
  };
  targets_.resize(layers_.size() + 1);
  targets_[0] = {matrix("embed", embed_, {}, c.vocab_size), vector("final_norm", final_norm_)};
  if (!tied_) targets_[0].push_back(matrix("head", head_, {}, c.vocab_size));

  const int q = c.q_dim(), kv = c.kv_dim(), inner = c.intermediate_size, hidden = c.hidden_size;
  const Placement place_q{0, false}, place_k{q, false}, place_v{q + kv, false}, gate{0, true}, up{1, true};
  for (size_t l = 0; l < layers_.size(); ++l) {
    LayerWeights& w = layers_[l];
    std::vector<Target>& list = targets_[l + 1];
    list = {vector("attn_norm", w.attn_norm),       vector("mlp_norm", w.mlp_norm),
            matrix("q", w.qkv, place_q, q),         matrix("k", w.qkv, place_k, kv),
            matrix("v", w.qkv, place_v, kv),        matrix("o", w.o, {}, hidden),
            matrix("gate", w.gate_up, gate, inner), matrix("up", w.gate_up, up, inner),
            matrix("down", w.down, {}, hidden)};
    const auto add = [&list](bool wanted, std::initializer_list<Target> targets) {
      if (wanted) list.insert(list.end(), targets);
    };
    add(c.qk_norm, {vector("q_norm", w.q_norm), vector("k_norm", w.k_norm)});
    add(c.qkv_bias, {bias("q_bias", w.qkv, place_q, q), bias("k_bias", w.qkv, place_k, kv),
                     bias("v_bias", w.qkv, place_v, kv)});
    add(c.o_bias, {bias("o_bias", w.o, {}, hidden)});
    add(c.mlp_bias, {bias("gate_bias", w.gate_up, gate, inner), bias("up_bias", w.gate_up, up, inner),
                     bias("down_bias", w.down, {}, hidden)});
  }
}

namespace {

std::string describe(const std::string& role, int layer) {
  return layer < 0 ? "tensor '" + role + "'" : "tensor '" + role + "' of layer " + std::to_string(layer);
}

}  // namespace

void ModelWeights::set(const std::string& role, int layer, int row_begin, int rows, int columns,
                       const void* values, Dtype source) {
  const int count = static_cast<int>(layers_.size());
  if (layer < -1 || layer >= count)
    throw CheckpointError(describe(role, layer) + ": the model has layers 0 to " + std::to_string(count - 1));
  for (Target& target : targets_[static_cast<size_t>(layer + 1)]) {
    if (target.role != role) continue;
    if (columns != target.columns || row_begin != target.filled || rows < 0 || rows > target.rows - row_begin)
      throw CheckpointError(describe(role, layer) + " has " + std::to_string(target.rows) + " rows of " +
                            std::to_string(target.columns) + ", to be given in order: row " +
                            std::to_string(target.filled) + " is next, and " + std::to_string(rows) +
                            " rows of " + std::to_string(columns) + " came for row " +
                            std::to_string(row_begin));
    if (target.vector != nullptr)
      for (int i = 0; i < rows; ++i)
        (*target.vector)[static_cast<size_t>(row_begin + i)] =
            element(values, source, static_cast<size_t>(i));
    else if (target.bias)
      target.matrix->set_bias(target.placement, row_begin, rows, values, source);
    else
      target.matrix->set_rows(target.placement, row_begin, rows, values, source);
    target.filled += rows;
    return;
  }
  throw CheckpointError(describe(role, layer) + " does not belong to this model");
}

void ModelWeights::check_complete() const {
  for (size_t group = 0; group < targets_.size(); ++group)
    for (const Target& target : targets_[group])
      if (target.filled != target.rows)
        throw CheckpointError(describe(target.role, static_cast<int>(group) - 1) + " has " +
                              std::to_string(target.filled) + " of its " + std::to_string(target.rows) +
                              " rows; every row must be given exactly once");
}

size_t ModelWeights::step_bytes() const { return bytes() - (tied_ ? 0 : embed_.bytes()); }

size_t ModelWeights::bytes() const {
  size_t total = embed_.bytes() + head_.bytes() + final_norm_.size() * sizeof(float);
  for (const LayerWeights& w : layers_)
    total += w.qkv.bytes() + w.o.bytes() + w.gate_up.bytes() + w.down.bytes() +
             (w.attn_norm.size() + w.mlp_norm.size() + w.q_norm.size() + w.k_norm.size()) * sizeof(float);
  return total;
}

}  // namespace specee
