#include "cpu/exit_predictors.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "cpu/inputs.h"
#include "cpu/scoring.h"
#include "specee/errors.h"

namespace specee {

ExitPredictors::ExitPredictors(const ModelConfig& model, int candidates, int width)
    : model_(&model), candidates_(candidates), width_(width) {
  if (candidates < 1 || candidates > kMaxCandidates || candidates > model.vocab_size || width < 1 ||
      width > (1 << 16))
    throw ConfigurationError("exit predictors of " + std::to_string(candidates) + " candidates and width " +
                             std::to_string(width) + ": 1 to " + std::to_string(kMaxCandidates) +
                             " candidates, no more than the vocabulary has, and 1 to 65536 are possible");
}

void ExitPredictors::set(int layer, const float* first, const float* first_bias, const float* second,
                         float second_bias) {
  if (layer < 1 || layer >= model_->num_layers || layers_.count(layer) != 0)
    throw ConfigurationError("an exit predictor for layer " + std::to_string(layer) + ": 1 to " +
                             std::to_string(model_->num_layers - 1) + " are possible, each once");
  ExitPredictor made;
  made.first = PackedMatrix(width_, features(), WeightType::f32, "an exit predictor");
  made.first.set_rows({}, 0, width_, first, WeightType::f32);
  made.first.set_bias({}, 0, width_, first_bias, WeightType::f32);
  made.second.assign(second, second + width_);
  made.second_bias = second_bias;
  layers_.emplace(layer, std::move(made));
}

const ExitPredictor& ExitPredictors::of(int layer) const {
  const auto found = layers_.find(layer);
  if (found == layers_.end())
    throw RowError("layer " + std::to_string(layer) +
                   " has no exit predictor: name layers that the speculator file has one for");
  return found->second;
}

float exit_chance(const Kernels& kernels, const ExitPredictor& predictor, const float* features,
                  float* inner) {
  InputRows inputs;
  inputs.data[static_cast<size_t>(InputForm::floats)] = features;
  inputs.stride[static_cast<size_t>(InputForm::floats)] = predictor.first.padded_k();
  const int width = predictor.first.outputs();
  run_linear(kernels, predictor.first,
             linear_call(kernels, predictor.first, inputs, 1, width, inner, width, Epilogue::store));
  double sum = predictor.second_bias;  // one chain, the same on every instruction set
  for (int i = 0; i < width; ++i)
    sum += static_cast<double>(std::max(inner[i], 0.0f)) *
           static_cast<double>(predictor.second[static_cast<size_t>(i)]);
  return static_cast<float>(1.0 / (1.0 + std::exp(-sum)));
}

}  // namespace specee
