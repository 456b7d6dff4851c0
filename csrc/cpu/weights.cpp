#include "cpu/weights.h"

#include "specee/errors.h"

namespace specee {

namespace {

std::string describe(const std::string& role, int layer) {
  return layer < 0 ? "tensor '" + role + "'" : "tensor '" + role + "' of layer " + std::to_string(layer);
}

WeightType type_of(const WeightTypes& types, const char* role, int layer) {
  const auto found = types.find({role, layer});
  if (found == types.end())
    throw ConfigurationError(describe(role, layer) + " has no format: give one for every matrix");
  return found->second;
}

}  // namespace

ModelWeights::ModelWeights(const ModelConfig& c, const WeightTypes& types)
    : tied_(c.tied_head),
      embed_(c.vocab_size, c.hidden_size, type_of(types, "embed", -1), "the embedding"),
      final_norm_(static_cast<size_t>(c.hidden_size)),
      layers_(static_cast<size_t>(c.num_layers)) {
  if (!tied_) head_ = PackedMatrix(c.vocab_size, c.hidden_size, type_of(types, "head", -1), "the head");
  for (int index = 0; index < c.num_layers; ++index) make_layer(c, types, index);
  list_targets(c);
}

void ModelWeights::make_layer(const ModelConfig& c, const WeightTypes& types, int index) {
  LayerWeights& layer = layers_[static_cast<size_t>(index)];
  const size_t hidden = static_cast<size_t>(c.hidden_size), head_dim = static_cast<size_t>(c.head_dim);
  const auto type = [&](const char* role) { return type_of(types, role, index); };
  layer.attn_norm.resize(c.attn_norm ? hidden : 0);
  layer.mlp_norm.resize(hidden);
  layer.q_norm.resize(c.qk_norm ? head_dim : 0);
  layer.k_norm.resize(c.qk_norm ? head_dim : 0);
  if (type("q") == type("k") && type("q") == type("v")) {
    layer.qkv.emplace_back(c.q_dim() + 2 * c.kv_dim(), c.hidden_size, type("q"), "a layer's q, k, v");
  } else {
    if (c.head_dim % kLanes != 0)
      throw ConfigurationError("q, k and v of layer " + std::to_string(index) +
                               " have different formats, which needs heads of "
                               "a multiple of 16, not " +
                               std::to_string(c.head_dim) + ": give all three the same");
    layer.qkv.emplace_back(c.q_dim(), c.hidden_size, type("q"), "a layer's q");
    layer.qkv.emplace_back(c.kv_dim(), c.hidden_size, type("k"), "a layer's k");
    layer.qkv.emplace_back(c.kv_dim(), c.hidden_size, type("v"), "a layer's v");
  }
  layer.o = PackedMatrix(c.hidden_size, c.q_dim(), type("o"), "a layer's o");
  if (type("gate") != type("up"))
    throw ConfigurationError("gate and up of layer " + std::to_string(index) +
                             " have different formats: give both the same");
  // Padding each half to whole blocks keeps gate and up of one output in neighbouring blocks.
  layer.gate_up = PackedMatrix(2 * round_up(c.intermediate_size, kLanes), c.hidden_size, type("gate"),
                               "a layer's gate, up");
  layer.down = PackedMatrix(c.hidden_size, c.intermediate_size, type("down"), "a layer's down");
}

void ModelWeights::list_targets(const ModelConfig& c) {
  const auto matrix = [](const char* role, PackedMatrix& m, Placement placement, int rows) {
    return Target{role, &m, nullptr, false, placement, rows, m.columns(), 0};
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
  const Placement gate{0, true}, up{1, true};
  for (size_t l = 0; l < layers_.size(); ++l) {
    LayerWeights& w = layers_[l];
    const bool together = w.qkv.size() == 1;
    PackedMatrix &own_q = w.qkv.front(), &own_k = w.qkv[together ? 0 : 1], &own_v = w.qkv.back();
    const Placement place_q{0, false}, place_k{together ? q : 0, false},
        place_v{together ? q + kv : 0, false};
    std::vector<Target>& list = targets_[l + 1];
    list = {vector("mlp_norm", w.mlp_norm),     matrix("q", own_q, place_q, q),
            matrix("k", own_k, place_k, kv),    matrix("v", own_v, place_v, kv),
            matrix("o", w.o, {}, hidden),       matrix("gate", w.gate_up, gate, inner),
            matrix("up", w.gate_up, up, inner), matrix("down", w.down, {}, hidden)};
    const auto add = [&list](bool wanted, std::initializer_list<Target> targets) {
      if (wanted) list.insert(list.end(), targets);
    };
    add(c.attn_norm, {vector("attn_norm", w.attn_norm)});
    add(c.qk_norm, {vector("q_norm", w.q_norm), vector("k_norm", w.k_norm)});
    add(c.qkv_bias, {bias("q_bias", own_q, place_q, q), bias("k_bias", own_k, place_k, kv),
                     bias("v_bias", own_v, place_v, kv)});
    add(c.o_bias, {bias("o_bias", w.o, {}, hidden)});
    add(c.mlp_bias, {bias("gate_bias", w.gate_up, gate, inner), bias("up_bias", w.gate_up, up, inner),
                     bias("down_bias", w.down, {}, hidden)});
  }
}

const ModelWeights::Target& ModelWeights::target(const std::string& role, int layer) const {
  const int count = static_cast<int>(layers_.size());
  if (layer < -1 || layer >= count)
    throw CheckpointError(describe(role, layer) + ": the model has layers 0 to " + std::to_string(count - 1));
  for (const Target& target : targets_[static_cast<size_t>(layer + 1)])
    if (target.role == role) return target;
  throw CheckpointError(describe(role, layer) + " does not belong to this model");
}

void ModelWeights::set(const std::string& role, int layer, int row_begin, int rows, int columns,
                       const void* values, WeightType source) {
  Target& into = const_cast<Target&>(target(role, layer));  // of this object, which is not const here
  const bool matrix = into.matrix != nullptr && !into.bias;
  if (matrix ? !into.matrix->takes(source) : is_quantised(source))
    throw CheckpointError(describe(role, layer) + " is kept as " +
                          weight_type_name(matrix ? into.matrix->type() : WeightType::f32) +
                          " and cannot be given as " + weight_type_name(source));
  if (columns != into.columns || row_begin != into.filled || rows < 0 || rows > into.rows - row_begin)
    throw CheckpointError(describe(role, layer) + " has " + std::to_string(into.rows) + " rows of " +
                          std::to_string(into.columns) + ", to be given in order: row " +
                          std::to_string(into.filled) + " is next, and " + std::to_string(rows) +
                          " rows of " + std::to_string(columns) + " came for row " +
                          std::to_string(row_begin));
  if (into.vector != nullptr)
    for (int i = 0; i < rows; ++i)
      (*into.vector)[static_cast<size_t>(row_begin + i)] = element(values, source, static_cast<size_t>(i));
  else if (into.bias)
    into.matrix->set_bias(into.placement, row_begin, rows, values, source);
  else
    into.matrix->set_rows(into.placement, row_begin, rows, values, source);
  into.filled += rows;
}

void ModelWeights::read(const std::string& role, int layer, int row_begin, int rows, float* out) const {
  const Target& from = target(role, layer);
  if (from.matrix == nullptr || from.bias)
    throw CheckpointError(describe(role, layer) + " is no matrix: its values are kept as they came");
  if (row_begin < 0 || rows < 0 || rows > from.rows - row_begin)
    throw CheckpointError(describe(role, layer) + " has rows 0 to " + std::to_string(from.rows - 1) +
                          ", and " + std::to_string(rows) + " from row " + std::to_string(row_begin) +
                          " on were asked for");
  for (int i = 0; i < rows; ++i)
    from.matrix->read_row(from.placement.output(row_begin + i),
                          out + static_cast<ptrdiff_t>(i) * from.matrix->k());
}

int ModelWeights::columns(const std::string& role, int layer) const {
  const Target& of = target(role, layer);
  return of.matrix == nullptr || of.bias ? 1 : of.matrix->k();
}

void ModelWeights::check_complete() const {
  for (size_t group = 0; group < targets_.size(); ++group)
    for (const Target& target : targets_[group])
      if (target.filled != target.rows)
        throw CheckpointError(describe(target.role, static_cast<int>(group) - 1) + " has " +
                              std::to_string(target.filled) + " of its " + std::to_string(target.rows) +
                              " rows; every row must be given exactly once");
}

std::vector<const PackedMatrix*> ModelWeights::matrices() const {
  std::vector<const PackedMatrix*> all = {&embed_};
  if (!tied_) all.push_back(&head_);
  for (const LayerWeights& w : layers_) {
    for (const PackedMatrix& part : w.qkv) all.push_back(&part);
    all.insert(all.end(), {&w.o, &w.gate_up, &w.down});
  }
  return all;
}

std::map<std::string, size_t> ModelWeights::bytes_by_step() const {
  std::map<std::string, size_t> sums;
  for (const LayerWeights& w : layers_) {
    for (const PackedMatrix& part : w.qkv) sums["qkv"] += part.bytes();
    sums["o"] += w.o.bytes();
    sums["gate_up"] += w.gate_up.bytes();
    sums["down"] += w.down.bytes();
  }
  sums["head"] = head().bytes();
  return sums;
}

size_t ModelWeights::step_bytes() const { return bytes() - (tied_ ? 0 : embed_.bytes()); }

size_t ModelWeights::bytes() const {
  size_t total = final_norm_.size() * sizeof(float);
  for (const PackedMatrix* matrix : matrices()) total += matrix->bytes();
  for (const LayerWeights& w : layers_)
    total += (w.attn_norm.size() + w.mlp_norm.size() + w.q_norm.size() + w.k_norm.size()) * sizeof(float);
  return total;
}

}  // namespace specee
