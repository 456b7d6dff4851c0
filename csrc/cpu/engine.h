// One model ready to run: weights, threads, and the verbs of specee/backends/protocol.py over them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/draft_head.h"
#include "cpu/drafter.h"
#include "cpu/drawing.h"
#include "cpu/exit_check.h"
#include "cpu/exit_rows.h"
#include "cpu/forward.h"
#include "cpu/head.h"
#include "cpu/rounds.h"
#include "cpu/scoring.h"
#include "cpu/sequence.h"
#include "cpu/shadow.h"
#include "cpu/two_stage_head.h"
#include "cpu/weights.h"

namespace specee {

struct WorkItem {
  Sequence* sequence;
  std::vector<int> slots;
};
using Work = std::vector<WorkItem>;

// A row to take through the layers until a predictor says that it may leave.
struct ExitCall {
  Sequence* sequence;
  DrafterColumn* column;
  int slot;
  std::vector<int> layers;  // to check, ascending
  float threshold;          // chance above which the row leaves
  Sampling sampling;
};

struct Exit {
  int layer = 0;  // where the row left, 0 if it did not
  int64_t token = -1;
  float confidence = 0.0f;  // chance that this is the final token, by the predictor
};

// Rows of one sequence to ask predictors about; `rows`: which of an ExitRows each of them is.
struct AskCall {
  Sequence* sequence;
  std::vector<int> slots;
  std::vector<int> rows;
  Sampling sampling;
};

// What a predictor says of a row: the likeliest of its candidates, and the chance that this is final.
struct Answer {
  float chance;
  int64_t token;
};

struct ExitSeconds {
  double draft = 0.0, layers = 0.0, head = 0.0;
};

// Calls may come from several threads, each with sequences of its own.
class Engine {
 public:
  // `isa`: a name of isa.h, empty for the fastest.
  Engine(const ModelConfig& config, const WeightTypes& types, const std::string& isa, int threads);

  ModelWeights& weights() { return weights_; }
  Costs& costs() { return costs_; }
  const ModelConfig& config() const { return config_; }
  const char* isa() const { return kernels_.name; }
  int threads() const { return pool_.size(); }

  // All weights have been set: throws CheckpointError if not.
  void complete();
  // Whether the best token may come from two stages, which are made ready for it; they are, by themselves,
  // once some tokens have been asked for.
  void use_two_stages(bool on);
  struct TwoStages {
    int64_t calls;  // answered by them
    double reread;  // heads that second stages have read, all together
  };
  TwoStages two_stages();
  // Bytes that weights and copies of them take, or will; what one decoding step of one row reads of them now,
  // in all and by step, but for second stages.
  struct Bytes {
    size_t weights, step;
    std::map<std::string, size_t> by_step;
  };
  Bytes bytes();

  void check_capacity(int64_t capacity) const;  // throws CapacityError
  std::unique_ptr<Sequence> sequence(int capacity, Dtype dtype, bool poison);

  // `between` is called between row blocks (64 rows), so that a caller can interrupt by throwing from it:
  // every row is then at its old or its new depth, and the sequence remains usable. Other sequences may be
  // used from it.
  void advance(const Work& work, int to_layer, const std::function<void()>& between);
  void hidden(const Work& work, float* out);
  // `head`: one of draft_head(), null for the model's own.
  void logits(const Work& work, const DraftHead* head, float* out);
  void argmax(const Work& work, int64_t* out);
  struct Seconds {
    double layers, head;
  };
  // advance() to the last layer, then sample(), or argmax() if `sampling` is null.
  Seconds verify(const Work& work, const std::vector<Sampling>* sampling,
                 const std::function<void()>& between, int64_t* out);
  void check_topk(int64_t k) const;  // throws RowError
  void topk(const Work& work, int k, int64_t* ids, float* values);
  void sample(const Work& work, const std::vector<Sampling>& sampling, int64_t* out);
  void draft(const Work& work, const std::vector<Sampling>& sampling, const DraftHead* head, int64_t* tokens,
             float* confidences);
  // From the kept states of the rows: rows x layers of each.
  void shadow(const Work& work, const std::vector<int>& layers, const DraftHead* head, int64_t* tokens,
              float* confidences);
  // Adapter, tokens and blocks may be null. Throws as DraftHeads does. Do not let it outlive the engine.
  std::unique_ptr<DraftHead> draft_head(std::unique_ptr<const Adapter> adapter,
                                        const std::vector<int64_t>* tokens, const HeadBlocks* blocks,
                                        bool normed = false);
  // A block without weights yet; `plain`: see DrafterBlock. Do not let it outlive the engine.
  std::unique_ptr<Drafter> drafter(const std::vector<int>& layers, int inner, WeightType type,
                                   bool plain = false);
  // A column of that drafter for a sequence of `capacity` slots. Throws CapacityError.
  std::unique_ptr<DrafterColumn> drafter_column(Drafter& drafter, int capacity, Dtype dtype,
                                                bool poison = false);
  // Of this engine's drafter and sequences: Drafter::draft().
  std::vector<Chain> draft_chains(Drafter& drafter, const std::vector<ChainCall>& calls,
                                  const DraftHead* head);
  // A set of predictors without any yet. Do not let it outlive the engine.
  std::unique_ptr<ExitPredictors> exit_predictors(int candidates, int width);
  // See specee/backends/protocol.py; the other arguments: advance()'s and draft_chains()'.
  std::vector<Exit> leave_early(Drafter& drafter, const ExitPredictors& predictors,
                                const std::vector<ExitCall>& calls, const DraftHead* head, bool confirm,
                                const std::function<void()>& between, ExitSeconds& seconds);
  std::vector<std::vector<int>> rank(Drafter& drafter, const std::vector<RankCall>& calls, int k,
                                     const DraftHead* head);
  // Rows to ask about, layer after layer, each by candidates of its own. Do not let it outlive the
  // predictors.
  std::unique_ptr<ExitRows> exit_rows(const ExitPredictors& predictors,
                                      const std::vector<std::vector<int>>& candidates) const;
  // All rows in one go, in the order of the calls. Before anything changes, throws RowError for a row that is
  // not behind exactly that layer, one that is named twice or is none, and a layer without a predictor.
  std::vector<Answer> ask_exits(ExitRows& rows, int layer, const std::vector<AskCall>& calls);
  // From the kept states of the rows: rows x layers x k logits of the row's k candidates.
  void score(const Work& work, const std::vector<int>& layers,
             const std::vector<std::vector<int>>& candidates, float* out);
  std::vector<Tree> draft_trees(Drafter& drafter, const std::vector<TreeCall>& calls, const DraftHead* head);
  // See Backend.run_rounds in specee/backends/protocol.py. `between`: advance()'s. After an exception drafts
  // may be left as speculative rows, and what earlier turns gave is text.
  std::vector<RoundTurn> run_rounds(std::vector<RoundCall> calls, const RoundParts& parts,
                                    const std::function<void()>& between, int turns);

 private:
  friend class EarlyExit;
  friend class RoundDrafting;
  friend class Rounds;
  struct Member {
    Sequence* sequence;
    int slot;
    bool named;  // in the caller's work, not only needed by it
  };
  std::vector<Member> closure(const Work& work, int to_layer) const;
  void advance_block(const std::vector<Member>& members, int to_layer);
  void begin_kept(const std::vector<Member>& members, int to_layer) const;
  void check(const Work& work) const;
  void check_layer(int layer) const;
  void check(const DraftHead* head) const;
  void check(const Drafter& drafter) const;
  std::vector<const float*> states(const Work& work) const;
  void check_finite(const std::vector<const float*>& states) const;
  std::vector<const float*> finite_states(const Work& work) const;
  std::vector<Draw> draws(const Work& work, const std::vector<Sampling>& sampling) const;
  // What a turn of run_rounds() drafts, as speculative rows. `results`: one a call, empty.
  void draft_round(const std::vector<RoundCall>& calls, const RoundParts& parts,
                   const std::function<void()>& between, std::vector<RoundResult>& results,
                   RoundSeconds& seconds);

  const ModelConfig config_;
  const Kernels& kernels_;
  ThreadPool pool_;
  Costs costs_;
  ModelWeights weights_;
  WeightStreams streams_;
  Forward forward_;
  HeadStream head_stream_;
  TwoStageHead two_stage_;
  Head head_;
  Drawing drawing_;
  Shadow shadow_;
  Scoring scoring_;
  ExitCheck exit_check_;
  DraftHeads draft_heads_;
  std::mutex mutex_;  // one call at a time: buffers are shared
};

// Rows that work names.
size_t count_rows(const Work& work);

}  // namespace specee
