// One checked layer of SpecEE for a set of rows, in one go: final norm, merged candidate scoring, softmax
// over the candidates, change since the layer checked before, predictor.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/exit_predictors.h"
#include "cpu/sampling.h"
#include "cpu/scoring.h"

namespace specee {

// A row on its way through the layers.
struct ExitRow {
  const Candidates* candidates;
  const ExitPredictor* predictor = nullptr;  // of the layer being checked
  const float* hidden = nullptr;             // after it
  std::vector<float> features;  // of it, kExitFeatures x candidates: logits, probabilities, changes
  bool checked = false;         // at an earlier layer, whose probabilities `features` then has
  float chance = 0.0f;          // that the layer's token is the final one
};

// The likeliest candidate by the scores in `features`, with the noise that the token at `position` will have.
int likeliest(const ExitRow& row, const Sampling& sampling, uint64_t position);

class ExitCheck {
 public:
  ExitCheck(const Kernels& kernels, Scoring& scoring) : kernels_(kernels), scoring_(scoring) {}

  // Fills `features` and `chance`. The first time, the change is the probability itself.
  void run(const std::vector<ExitRow*>& rows);

 private:
  const Kernels& kernels_;
  Scoring& scoring_;
  std::vector<std::vector<float>> inner_;  // by row of a call: what the predictor has in between
};

}  // namespace specee
