// Chains and trees of drafts by a drafter block: columns of keys and values that follow texts, and a token at
// a time, or a depth at a time, from there. See specee/backends/protocol.py.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "cpu/branching.h"
#include "cpu/draft_tree.h"
#include "cpu/drafter_block.h"
#include "cpu/drawing.h"
#include "cpu/head.h"
#include "cpu/sequence.h"

namespace specee {

class Drafter;

// What a drafter has for one sequence: keys and values of the positions from `first` on, made from true
// states of the model. Slot s is position first + s. Behind them there is room for drafts. With `poison`
// slots that no position is in hold NaN between calls.
class DrafterColumn {
 public:
  DrafterColumn(const Drafter& owner, const ModelConfig& block, int capacity, Dtype dtype, bool poison)
      : owner_(&owner), capacity_(capacity), poison_(poison), cache_(block, capacity, dtype) {
    cut(0);
  }

  int first() const { return first_; }
  int length() const { return static_cast<int>(tokens_.size()); }

 private:
  friend class Drafter;
  // Forgets all but the first `length` positions, and whatever drafts have left.
  void cut(int length) {
    tokens_.resize(static_cast<size_t>(length));
    spoil(length);
  }
  void spoil(int slot) {
    for (; poison_ && slot < capacity_; ++slot) cache_.poison(slot);
  }
  // The first slot behind the true positions and what was guessed on top of them.
  int behind() const { return length() + static_cast<int>(tail_.tokens.size()) - 1; }

  const Drafter* owner_;  // compared, never followed
  int capacity_;
  bool poison_;
  KvCache cache_;
  int first_ = 1;
  std::vector<int> tokens_;  // of the positions that are there: what they were made for
  // What the block gave from the newest of them on, and for guessed positions behind it: kept between the
  // calls of rank(), whose texts grow by a token at a time.
  struct Tail {
    int base = -1;  // position of the first
    std::vector<int> tokens;
    std::vector<std::vector<float>> states;
  };
  Tail tail_;
};

// One chain of drafts to make.
struct ChainCall {
  Sequence* sequence;
  DrafterColumn* column;
  int length;        // at most so many, at least 1
  float stop_below;  // none after one that is less likely
  Sampling sampling;
};

struct Chain {
  std::vector<int64_t> tokens;
  std::vector<float> confidences;
};

// A row to guess the next token of.
struct RankCall {
  Sequence* sequence;
  DrafterColumn* column;
  int slot;
};

// One tree of drafts to make.
struct TreeCall {
  Sequence* sequence;
  DrafterColumn* column;
  TreeLimits limits;
  Sampling sampling;
  int likely = 0;  // tokens to name after each node that may get children, 0 for none
};

class Drafter {
 public:
  // The other arguments: DrafterBlock's.
  Drafter(const ModelConfig& model, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool,
          HeadStream& stream, Drawing& drawing, const std::vector<int>& layers, int inner, WeightType type,
          bool plain)
      : model_(model),
        drawing_(drawing),
        branching_(model.vocab_size, kernels, pool, stream),
        block_(model, weights, kernels, pool, layers, inner, type, plain) {}

  const ModelConfig* model() const { return &model_; }
  DrafterBlock& block() { return block_; }
  std::unique_ptr<DrafterColumn> column(int capacity, Dtype dtype, bool poison);

  // All chains grow side by side, each by the tokens that its sequence may be given next. Before that,
  // columns catch up with their sequences, as far back as states are kept. Before anything changes, throws
  // RowError for a sequence whose newest position is not the only one that is not complete, or that keeps no
  // state before it, for rows that are speculative, and where a column has no room or is named twice;
  // ConfigurationError for a column of another drafter.
  std::vector<Chain> draft(const std::vector<ChainCall>& calls, const DraftHead* head);
  // Trees, a depth of all of them at a time. The tree with one child a node is the chain; where more
  // positions than the newest are not complete, the block guesses its way through them, as in rank(). No more
  // nodes get children than a column has room for. Throws what rank() throws, and RowError for limits under 1
  // and speculative rows.
  std::vector<Tree> draft_trees(const std::vector<TreeCall>& calls, const DraftHead* head, Head& heads);

  // The k likeliest tokens after each row, the likeliest first, lower id first among equals. Columns catch up
  // as far as there are true states; from there on the block goes on from what it gave itself, along the
  // row's path. Before anything changes, throws RowError for a row that is complete, where no state is kept
  // before the first position that is not, and as draft() does.
  std::vector<std::vector<int>> rank(const std::vector<RankCall>& calls, int k, const DraftHead* head,
                                     Head& heads);

 private:
  using State = std::vector<float>;  // hidden_size
  // A column, and the newest position of its sequence that has a true state before it.
  struct Spot {
    const Sequence* sequence;
    DrafterColumn* column;
    int last;
  };
  // Every call, and that each has a column of its own.
  template <class Call>
  void check(const std::vector<Call>& calls) const {
    std::vector<const DrafterColumn*> columns;
    for (const Call& call : calls) {
      check(call);
      columns.push_back(call.column);
    }
    check_distinct(std::move(columns));
  }
  void check(const ChainCall& call) const;
  void check(const RankCall& call) const;
  void check_owner(const DrafterColumn& column) const;
  static void check_distinct(std::vector<const DrafterColumn*> columns);
  // What the block gives for the newest position of each sequence.
  std::vector<State> begin(const std::vector<ChainCall>& calls);
  void catch_up(const std::vector<Spot>& spots, const std::vector<State*>& newest);
  void follow(const Spot& spot) const;
  void guess(const std::vector<RankCall>& calls);
  void resume(const std::vector<RankCall>& calls, const std::vector<std::vector<int>>& texts);
  void extend(const std::vector<RankCall>& calls, const std::vector<std::vector<int>>& texts);
  void draw(const std::vector<ChainCall>& calls, const std::vector<size_t>& open,
            const std::vector<State>& states, const DraftHead* head, std::vector<Chain>& chains);
  std::vector<int> text_with(const Sequence& sequence, const std::vector<int64_t>& drafts) const;
  // Of the trees: drafter_trees.cpp.
  struct Growing;
  void branch(std::vector<Growing>& trees, const DraftHead* head, Head& heads);
  void check_likely(int k, const DraftHead* head) const;
  static std::vector<Likely> likeliest(const std::vector<const float*>& states, int k, const DraftHead* head,
                                       Head& heads);
  void run(std::vector<Growing>& trees);

  const ModelConfig& model_;
  Drawing& drawing_;
  Branching branching_;
  DrafterBlock block_;
};

}  // namespace specee
