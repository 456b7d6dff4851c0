#include "tiny_drafter.h"

#include <cmath>
#include <string>

#include "random_blocks.h"
#include "specee/errors.h"

namespace native {

using specee::Drafter;
using specee::Engine;
using specee::WeightType;

namespace {

void fill(Drafter& drafter, const char* name, int rows, int columns, WeightType type, Random& random) {
  const float bound = 2.0f / std::sqrt(static_cast<float>(columns));
  if (columns == 1 || !specee::is_quantised(type)) {
    const auto values = random.floats(static_cast<size_t>(rows) * static_cast<size_t>(columns), bound);
    return drafter.block().set(name, rows, columns, values.data(), WeightType::f32);
  }
  const std::vector<uint8_t> blocks = random_blocks(type, rows, columns, bound, random);
  drafter.block().set(name, rows, static_cast<int>(blocks.size()) / rows, blocks.data(), type);
}

}  // namespace

std::unique_ptr<Drafter> some_drafter(Engine& engine, const std::vector<int>& layers, Random& random) {
  const specee::ModelConfig& c = engine.config();
  const WeightType types[] = {WeightType::f32, WeightType::bf16, WeightType::q8_0, WeightType::q4_1};
  const WeightType type = types[random.between(0, 3)];
  const int inner = random.between(1, 50), hidden = c.hidden_size, read = static_cast<int>(layers.size());
  const bool plain = read == 1 && random.chance(50);
  if (read > 1) CHECK_THROWS(specee::ConfigurationError, engine.drafter(layers, inner, type, true));
  std::unique_ptr<Drafter> drafter = engine.drafter(layers, inner, type, plain);
  CHECK_THROWS(specee::CheckpointError, drafter->block().check_complete());
  for (int i = 0; i < read; ++i)
    fill(*drafter, ("state_norms." + std::to_string(i)).c_str(), hidden, 1, type, random);
  fill(*drafter, "mlp_norm", hidden, 1, type, random);
  if (plain) fill(*drafter, "fc_bias", hidden, 1, type, random);
  for (const char* norm : {"embed_norm", "fused_norm", "attn_norm"})
    if (!plain) fill(*drafter, norm, hidden, 1, type, random);
  if (!plain) fill(*drafter, "fuse", hidden, read * hidden, type, random);
  fill(*drafter, "fc", hidden, 2 * hidden, type, random);
  fill(*drafter, "q", c.q_dim(), hidden, type, random);
  for (const char* part : {"k", "v"}) fill(*drafter, part, c.kv_dim(), hidden, type, random);
  fill(*drafter, "o", hidden, c.q_dim(), type, random);
  for (const char* part : {"gate", "up"}) fill(*drafter, part, inner, hidden, type, random);
  const float one = 1.0f;
  CHECK_THROWS(specee::CheckpointError, drafter->block().check_complete());
  CHECK_THROWS(specee::CheckpointError, drafter->block().set("fc", 1, 1, &one, WeightType::f32));
  CHECK_THROWS(specee::CheckpointError, drafter->block().set("nothing", 1, 1, &one, WeightType::f32));
  fill(*drafter, "down", hidden, inner, type, random);
  drafter->block().check_complete();
  return drafter;
}

std::unique_ptr<specee::ExitPredictors> some_predictors(Engine& engine, int candidates, Random& random) {
  const int width = random.between(1, 40), features = specee::kExitFeatures * candidates;
  auto made = engine.exit_predictors(candidates, width);
  for (int layer = 1; layer < engine.config().num_layers; ++layer) {
    const auto size = static_cast<size_t>(width);
    const std::vector<float> first = random.floats(size * static_cast<size_t>(features), 0.5f);
    const std::vector<float> bias = random.floats(size, 0.5f);
    const std::vector<float> second = random.floats(size, 4.0f / std::sqrt(static_cast<float>(width)));
    made->set(layer, first.data(), bias.data(), second.data(), random.uniform(-0.5f, 0.5f));
    CHECK_THROWS(specee::ConfigurationError,
                 made->set(layer, first.data(), bias.data(), second.data(), 0.0f));
  }
  CHECK_THROWS(specee::RowError, made->of(engine.config().num_layers));
  return made;
}

}  // namespace native
