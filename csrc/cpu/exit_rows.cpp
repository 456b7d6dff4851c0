#include "cpu/exit_rows.h"

#include <algorithm>
#include <string>

#include "cpu/engine.h"
#include "specee/errors.h"

namespace specee {

ExitRows::ExitRows(const ExitPredictors& predictors, const Scoring& scoring,
                   const std::vector<std::vector<int>>& candidates)
    : predictors_(predictors), candidates_(scoring.gather(candidates)), rows_(candidates.size()) {
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].size() != static_cast<size_t>(predictors.candidates()))
      throw RowError(std::to_string(candidates[i].size()) + " candidates for a row: give " +
                     std::to_string(predictors.candidates()) + ", as many as the predictors know");
    rows_[i].candidates = &candidates_[i];
  }
}

ExitRow& ExitRows::row(int index) {
  if (index < 0 || static_cast<size_t>(index) >= rows_.size())
    throw RowError("row " + std::to_string(index) + " of " + std::to_string(rows_.size()) +
                   " rows to ask about: give one that has candidates");
  return rows_[static_cast<size_t>(index)];
}

std::unique_ptr<ExitRows> Engine::exit_rows(const ExitPredictors& predictors,
                                            const std::vector<std::vector<int>>& candidates) const {
  if (predictors.model() != &config_)
    throw ConfigurationError(
        "exit predictors of another model; make them with this backend's exit_predictors()");
  return std::make_unique<ExitRows>(predictors, scoring_, candidates);
}

std::vector<Answer> Engine::ask_exits(ExitRows& rows, int layer, const std::vector<AskCall>& calls) {
  const ExitPredictor& predictor = rows.predictors().of(layer);
  if (rows.predictors().model() != &config_)
    throw ConfigurationError("rows to ask about of another model; make them with this backend's exit_rows()");
  Work work;
  for (const AskCall& call : calls) work.push_back({call.sequence, call.slots});
  check(work);
  std::vector<ExitRow*> asked;
  std::vector<const Row*> behind;
  for (const AskCall& call : calls) {
    if (call.rows.size() != call.slots.size())
      throw RowError(std::to_string(call.slots.size()) + " slots and " + std::to_string(call.rows.size()) +
                     " rows to ask about: give as many of both");
    for (size_t i = 0; i < call.slots.size(); ++i) {
      const Row& row = call.sequence->row(call.slots[i]);
      if (row.done != layer)
        throw RowError("the row in slot " + std::to_string(call.slots[i]) + " has done " +
                       std::to_string(row.done) + " layers: advance it to layer " + std::to_string(layer) +
                       ", and no further, to ask there");
      behind.push_back(&row);
      asked.push_back(&rows.row(call.rows[i]));
    }
  }
  std::vector<ExitRow*> distinct = asked;
  std::sort(distinct.begin(), distinct.end());
  if (std::adjacent_find(distinct.begin(), distinct.end()) != distinct.end())
    throw RowError("a row is asked about twice in one call: name each once");
  std::vector<Answer> answers;
  if (asked.empty()) return answers;
  std::vector<const float*> states;
  for (size_t i = 0; i < asked.size(); ++i) states.push_back(behind[i]->hidden.get());
  const std::lock_guard<std::mutex> lock(mutex_);
  check_finite(states);
  for (size_t i = 0; i < asked.size(); ++i) {
    asked[i]->predictor = &predictor;
    asked[i]->hidden = states[i];
  }
  exit_check_.run(asked);
  size_t next = 0;
  for (const AskCall& call : calls)
    for (size_t i = 0; i < call.slots.size(); ++i, ++next)
      answers.push_back({asked[next]->chance, likeliest(*asked[next], call.sampling,
                                                        static_cast<uint64_t>(behind[next]->position) + 1)});
  return answers;
}

}  // namespace specee
