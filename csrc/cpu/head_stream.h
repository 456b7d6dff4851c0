// The final norm and the head's product for rows at any depth: logits are made a few hundred at a time and
// handed on at once, so that nobody has to keep them.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/adapter.h"
#include "cpu/costs.h"
#include "cpu/draft_head.h"
#include "cpu/inputs.h"
#include "cpu/thread_pool.h"
#include "cpu/weight_streams.h"
#include "cpu/weights.h"

namespace specee {

// A member's pieces begin at multiples of this from its first column, however many columns they have.
inline constexpr int kHeadRun = 256;

// Logits of some rows for columns [begin, begin + columns).
struct HeadPiece {
  int row, rows, begin, columns;
  const float* values;
  ptrdiff_t stride;
  const float* of(int r) const { return values + r * stride; }
};

class HeadStream {
 public:
  HeadStream(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels, ThreadPool& pool,
             Costs& costs, WeightStreams& streams);

  // Heads with adapters up to this width can be used from now on.
  void reserve_adapter(int width) { adapter_pass_.reserve(width); }
  // And heads whose matrix is of that type.
  void reserve_type(WeightType type);

  // `hidden`: one pointer to hidden_size floats a row, any number of rows. `head`: null for the model's own.
  // Members call consume(member, piece) at the same time, each for columns of its own, the lowest first;
  // consume() must not throw.
  template <class Consume>
  void run(const std::vector<const float*>& hidden, const DraftHead* head, const Consume& consume) {
    const int total = static_cast<int>(hidden.size());
    std::vector<char> finite(static_cast<size_t>(pool_.size()), 1);  // a team must not throw
    pool_.run([&](Team& team) {
      Lap lap(costs_, team.index());
      for (int row = 0; row < total; row += kMaxRows) {
        const int rows = std::min(kMaxRows, total - row);
        const InputRows inputs = normed(team, hidden.data() + row, rows, head, finite);
        multiply(team, head, inputs, rows, [&](HeadPiece piece) {
          piece.row = row;
          consume(team.index(), piece);
        });
        lap.mark(Step::head);
        team.barrier();  // inputs may be overwritten
        lap.waited();
      }
    });
    check(finite, head);
  }

  // For those that multiply by themselves: what run() begins with, for a member of a team, and what it ends
  // with. A member whose `finite` is 0 afterwards has inputs that are no numbers; check() throws
  // NumericalError for it.
  InputRows normed(Team& team, const float* const* hidden, int rows, const DraftHead* head,
                   std::vector<char>& finite);
  static void check(const std::vector<char>& finite, const DraftHead* head);

 private:
  // Most values of a piece: they stay in the first-level cache for few rows. The fewer pieces the better:
  // what is done with one gives memory a rest, and the next one a slow start.
  static constexpr int kPieceValues = 4096;
  static int piece_columns(int rows) { return std::max(kPieceValues / rows / kHeadRun * kHeadRun, kHeadRun); }

  template <class Take>
  void multiply(Team& team, const DraftHead* head, const InputRows& inputs, int rows, const Take& take) {
    const PackedMatrix& matrix = head != nullptr ? head->matrix() : weights_.head();
    const bool own = &matrix == &weights_.head();
    std::vector<float>& piece = pieces_[static_cast<size_t>(team.index())];
    const Range range = share_blocks(team.index(), team.size(), matrix, Epilogue::store);
    // Other matrices have no place in the order of a pass: all there is to fetch is the matrix itself.
    const WeightRun run = weight_run(matrix, range);
    WeightStream alone = {&run, 1, 0, run.bytes, 0, 0};
    if (own) streams_.begin_head(team.index());
    const int width = piece_columns(rows), blocks = width / kLanes;
    for (int block = range.begin; block < range.end; block += blocks) {
      LinearCall call =
          linear_call(kernels_, matrix, inputs, rows, matrix.outputs(), piece.data(), width, Epilogue::store);
      call.block_begin = block;
      call.block_end = std::min(range.end, block + blocks);
      call.stream = own ? streams_.of(team.index()) : &alone;
      call.column_origin = block * kLanes;
      run_linear(kernels_, matrix, call);
      const int columns = std::min(call.block_end * kLanes, matrix.outputs()) - call.column_origin;
      take(HeadPiece{0, rows, call.column_origin, columns, piece.data(), width});
    }
    if (own) streams_.done(team.index());
  }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Costs& costs_;
  WeightStreams& streams_;
  Forms forms_;
  std::unique_ptr<Inputs> inputs_;
  AdapterPass adapter_pass_;
  std::vector<std::vector<float>> pieces_;  // per member
};

}  // namespace specee
