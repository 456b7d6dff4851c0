// A head for drafts: fewer tokens than the model's own, and an adapter before it. Either may be missing.
#pragma once

#include <memory>
#include <vector>

#include "cpu/adapter.h"
#include "cpu/packed.h"
#include "specee/config.h"

namespace specee {

// Rows of a model's head. A logit made with one as it is has the bits it has in the whole head: an output is
// one chain over k, wherever it stands (kernels.h).
struct HeadRows {
  // `tokens`: distinct, within the vocabulary, ascending, so that the lowest column is the lowest id.
  HeadRows(const PackedMatrix& head, std::vector<int> tokens);
  // The same in blocks of another type, a row of `blocks` for each token.
  HeadRows(int k, std::vector<int> tokens, WeightType type, const void* blocks);

  std::vector<int> ids;  // by column
  PackedMatrix matrix;
};

class DraftHead {
 public:
  // `rows` and `adapter` may be null. `normed`: states come as the head takes them, behind no norm of the
  // model's. The model's own head stays where it is: do not outlive its engine.
  DraftHead(const ModelConfig& model, const PackedMatrix& whole, std::shared_ptr<const HeadRows> rows,
            std::unique_ptr<const Adapter> adapter, bool normed);

  // The model this head was made for: compared, never followed.
  const ModelConfig* model() const { return model_; }
  const PackedMatrix& matrix() const { return rows_ ? rows_->matrix : whole_; }
  // Token of each column, null if columns are tokens.
  const std::vector<int>* ids() const { return rows_ ? &rows_->ids : nullptr; }
  const Adapter* adapter() const { return adapter_.get(); }
  bool normed() const { return normed_; }
  // Bytes of weights that one use reads.
  size_t bytes() const { return matrix().bytes() + (adapter_ ? adapter_->bytes() : 0); }

 private:
  const ModelConfig* model_;
  const PackedMatrix& whole_;
  std::shared_ptr<const HeadRows> rows_;
  std::unique_ptr<const Adapter> adapter_;
  bool normed_;
};

// Rows of blocks for the tokens of a draft head, in the order of the tokens when they ascend.
struct HeadBlocks {
  WeightType type;
  const void* rows;
};

// Makes the draft heads of one model. Those with the same tokens, as the model has them, share their rows.
class DraftHeads {
 public:
  DraftHeads(const ModelConfig& config, const PackedMatrix& whole) : config_(config), whole_(whole) {}

  // `tokens`: null for all, else in any order. `blocks`: null for the model's own rows; needs tokens.
  // `normed`: see DraftHead. Throws ConfigurationError for no token at all, for one outside the vocabulary,
  // and for one given twice.
  std::unique_ptr<DraftHead> make(std::unique_ptr<const Adapter> adapter, const std::vector<int64_t>* tokens,
                                  const HeadBlocks* blocks, bool normed = false);

 private:
  std::shared_ptr<const HeadRows> rows_of(const std::vector<int64_t>& tokens);

  const ModelConfig& config_;
  const PackedMatrix& whole_;
  std::vector<std::weak_ptr<const HeadRows>> made_;
};

}  // namespace specee
