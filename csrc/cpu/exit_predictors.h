// SpecEE's exit predictors (Xu et al., 2025): for each layer a small network that says from the candidates'
// scores whether the layer's token is the final one.
#pragma once

#include <map>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/packed.h"
#include "specee/config.h"

namespace specee {

inline constexpr int kExitFeatures = 3;  // of a candidate: its logit, its probability, and how that changed

// sigmoid(second . relu(first x + first_bias) + second_bias)
struct ExitPredictor {
  PackedMatrix first;  // width x features, with a bias
  std::vector<float> second;
  float second_bias = 0.0f;
};

class ExitPredictors {
 public:
  // For `candidates` of 1 to 16 tokens. Throws ConfigurationError.
  ExitPredictors(const ModelConfig& model, int candidates, int width);

  // The model these were made for: compared, never followed.
  const ModelConfig* model() const { return model_; }
  int candidates() const { return candidates_; }
  int width() const { return width_; }
  int features() const { return kExitFeatures * candidates_; }
  // first: width x features, row-major. Throws ConfigurationError for a layer that is none, or set before.
  void set(int layer, const float* first, const float* first_bias, const float* second, float second_bias);
  // Throws RowError if the layer has none.
  const ExitPredictor& of(int layer) const;

 private:
  const ModelConfig* model_;
  int candidates_, width_;
  std::map<int, ExitPredictor> layers_;
};

// `inner`: scratch of as many floats as the predictor is wide.
float exit_chance(const Kernels& kernels, const ExitPredictor& predictor, const float* features,
                  float* inner);

}  // namespace specee
