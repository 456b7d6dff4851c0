#include "tiny_engine.h"

#include <cmath>

#include "random_blocks.h"

namespace native {

using specee::Engine;
using specee::ModelConfig;
using specee::WeightType;
using specee::WeightTypes;

ModelConfig tiny_config(Random& random) {
  ModelConfig c;
  c.vocab_size = random.between(5, 40);
  c.hidden_size = random.between(3, 40);
  c.intermediate_size = random.between(3, 50);
  c.num_layers = random.between(1, 4);
  c.num_kv_heads = random.between(1, 2);
  c.num_heads = c.num_kv_heads * random.between(1, 5);
  c.head_dim = 2 * random.between(1, 12);
  c.max_position = 64;
  for (int l = 0; l < c.num_layers; ++l) c.windows.push_back(random.chance(50) ? 0 : random.between(1, 9));
  c.tied_head = random.chance(50);
  c.qkv_bias = random.chance(50);
  c.o_bias = random.chance(50);
  c.mlp_bias = random.chance(50);
  c.qk_norm = random.chance(50);
  if (random.chance(20)) c.hidden_size = 256;  // what the K formats need
  if (random.chance(20)) c.head_dim = 16;      // what q, k, v of different formats need
  return c;
}

namespace {

WeightType any_type(int k, Random& random) {
  for (;;) {
    const WeightType type = static_cast<WeightType>(random.between(0, specee::kWeightTypes - 1));
    if (!specee::is_quantised(type) || k % specee::quant_layout(type).block == 0 ||
        specee::quant_layout(type).block == specee::kUnit)
      return type;
  }
}

}  // namespace

WeightTypes tiny_types(const ModelConfig& c, Random& random) {
  const int kind = random.between(0, 3);
  const auto type = [&](int k) {
    return kind == 0 ? WeightType::f32 : kind == 1 ? WeightType::bf16 : any_type(k, random);
  };
  WeightTypes types = {{{"embed", -1}, type(c.hidden_size)}, {{"head", -1}, type(c.hidden_size)}};
  for (int l = 0; l < c.num_layers; ++l) {
    types[{"q", l}] = types[{"k", l}] = types[{"v", l}] = type(c.hidden_size);
    if (c.head_dim % specee::kLanes == 0)
      for (const char* role : {"k", "v"}) types[{role, l}] = type(c.hidden_size);
    types[{"o", l}] = type(c.q_dim());
    types[{"gate", l}] = types[{"up", l}] = type(c.hidden_size);
    types[{"down", l}] = type(c.intermediate_size);
  }
  return types;
}

namespace {

class Filler {
 public:
  Filler(Engine& engine, const WeightTypes& types, uint64_t seed)
      : engine_(engine), types_(types), random_(seed) {}

  void matrix(const char* role, int layer, int rows, int columns) {
    const float bound = 2.0f / std::sqrt(static_cast<float>(columns));
    const WeightType type = types_.at({role, layer});
    if (!specee::is_quantised(type)) return set(role, layer, rows, columns, bound);
    const std::vector<uint8_t> blocks = random_blocks(type, rows, columns, bound, random_);
    const int row_bytes = static_cast<int>(blocks.size()) / rows;
    engine_.weights().set(role, layer, 0, rows, row_bytes, blocks.data(), type);
  }
  void vector(const char* role, int layer, int rows) { set(role, layer, rows, 1, 1.0f); }

 private:
  void set(const char* role, int layer, int rows, int columns, float bound) {
    const std::vector<float> values =
        random_.floats(static_cast<size_t>(rows) * static_cast<size_t>(columns), bound);
    engine_.weights().set(role, layer, 0, rows, columns, values.data(), WeightType::f32);
  }

  Engine& engine_;
  const WeightTypes& types_;
  Random random_;
};

void fill_layer(Filler& fill, const ModelConfig& c, int l) {
  fill.vector("attn_norm", l, c.hidden_size);
  fill.vector("mlp_norm", l, c.hidden_size);
  fill.matrix("q", l, c.q_dim(), c.hidden_size);
  fill.matrix("k", l, c.kv_dim(), c.hidden_size);
  fill.matrix("v", l, c.kv_dim(), c.hidden_size);
  fill.matrix("o", l, c.hidden_size, c.q_dim());
  fill.matrix("gate", l, c.intermediate_size, c.hidden_size);
  fill.matrix("up", l, c.intermediate_size, c.hidden_size);
  fill.matrix("down", l, c.hidden_size, c.intermediate_size);
  if (c.qk_norm)
    for (const char* role : {"q_norm", "k_norm"}) fill.vector(role, l, c.head_dim);
  if (c.qkv_bias) {
    fill.vector("q_bias", l, c.q_dim());
    for (const char* role : {"k_bias", "v_bias"}) fill.vector(role, l, c.kv_dim());
  }
  if (c.o_bias) fill.vector("o_bias", l, c.hidden_size);
  if (c.mlp_bias) {
    for (const char* role : {"gate_bias", "up_bias"}) fill.vector(role, l, c.intermediate_size);
    fill.vector("down_bias", l, c.hidden_size);
  }
}

}  // namespace

std::unique_ptr<Engine> tiny_engine(const ModelConfig& config, const WeightTypes& types,
                                    const std::string& isa, int threads, uint64_t seed) {
  auto engine = std::make_unique<Engine>(config, types, isa, threads);
  Filler fill(*engine, types, seed);
  fill.matrix("embed", -1, config.vocab_size, config.hidden_size);
  if (!config.tied_head) fill.matrix("head", -1, config.vocab_size, config.hidden_size);
  fill.vector("final_norm", -1, config.hidden_size);
  for (int l = 0; l < config.num_layers; ++l) fill_layer(fill, config, l);
  engine->complete();
  if (seed % 2 == 0) engine->use_two_stages(true);  // else after some tokens
  return engine;
}

}  // namespace native
