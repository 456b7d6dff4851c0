// Rows on their way through the layers that predictors are asked about together: the nodes of token trees
// (SpecEE's grouped scoring; Xu et al., 2025). Who advances the rows, and what an answer means, is for the
// caller to say.
#pragma once

#include <vector>

#include "cpu/exit_check.h"

namespace specee {

class ExitRows {
 public:
  // One row for each list of candidates, gathered once for all layers. Throws RowError where there are not as
  // many as the predictors know, and as Scoring::gather().
  ExitRows(const ExitPredictors& predictors, const Scoring& scoring,
           const std::vector<std::vector<int>>& candidates);
  ExitRows(const ExitRows&) = delete;
  ExitRows& operator=(const ExitRows&) = delete;

  const ExitPredictors& predictors() const { return predictors_; }
  // Throws RowError if there is none such.
  ExitRow& row(int index);

 private:
  const ExitPredictors& predictors_;
  std::vector<Candidates> candidates_;
  std::vector<ExitRow> rows_;
};

}  // namespace specee
