// The rows of one sequence and where each stands: which position, which parent, how many layers done.
//
// Rows are named by cache slot. Committed position p is in slot p; a speculative row takes the lowest free
// slot past the committed ones. Going from a row to its parent, the number of layers done never falls:
// nothing can attend to keys that are not there yet. frontier() follows from that.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kept_states.h"
#include "cpu/kv_cache.h"

namespace specee {

struct Row {
  int token = 0;
  int parent = -1;  // slot, -1 for position 0
  int position = 0;
  int done = 0;  // layers
  bool live = false;
  std::unique_ptr<float[]> hidden;  // after layer `done`, hidden_size; null if none or dropped
  KeptRow kept;                     // states behind the layers that are kept, as far as done; or null
};

class Sequence {
 public:
  Sequence(const ModelConfig& config, int capacity, Dtype dtype, bool poison);

  // The model this sequence was made for: compared, never followed.
  const ModelConfig* model() const { return model_; }
  int length() const { return length_; }
  int capacity() const { return capacity_; }
  std::vector<int> frontier() const;
  std::vector<int> speculative() const;  // parents before children
  const Row& row(int slot) const;        // throws RowError if the slot is not live
  Row& row(int slot);

  // The verbs of specee/backends/protocol.py. Each throws before it changes anything.
  int append(const std::vector<int>& tokens);  // first slot
  std::vector<int> branch(const std::vector<int>& tokens, const std::vector<int>* parents, int root);
  void prune(const std::vector<int>& slots);
  void commit(const std::vector<int>& path);
  void rollback(int n);
  void keep(const std::vector<int>& layers, int positions);
  int kept() const;

  // Slots of the speculative rows from the committed text to `slot`, in position order (empty if committed).
  std::vector<int32_t> path(int slot) const;
  // Tokens from position 0 up to and with the row in `slot`, each once, ascending.
  std::vector<int> distinct_tokens(int slot) const;
  // Lets go of the hidden states of complete committed rows whose slot is not marked in `keep` (one mark a
  // slot).
  void release_hidden(const std::vector<char>& keep);
  // The row has been through `done` layers. Its hidden state stays in row.hidden unless it is committed,
  // complete and not to be kept.
  void note_done(int slot, int done, bool keep);

  const KeptStates& keeps() const { return keeps_; }
  // Before the row's first layer: its states are kept from now on, unless the row is committed and would be
  // let go of as soon as the first `complete` positions are complete.
  void begin_kept(int slot, int complete);
  // hidden_size floats. Throws RowError if they are not kept.
  const float* kept_state(int slot, int layer) const;

  // Set for the length of a native call that works on the rows without Python's lock. Whoever holds that lock
  // and finds it set keeps off: another thread, or a signal handler in the middle of a long call.
  bool busy() const { return busy_; }
  void set_busy(bool busy) { busy_ = busy; }

  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }
  int last_committed() const { return length_ - 1; }

 private:
  void check_tokens(const std::vector<int>& tokens) const;
  void check_room(size_t rows) const;
  void place(int slot, int token, int parent, int position);
  void drop(int slot);
  void drop_speculative();
  void clear(int slot);
  void retire();  // lets go of what was kept of complete rows before the latest
  bool is_speculative(int slot) const;
  void check_path(const std::vector<int>& path) const;

  const ModelConfig* model_;
  int vocab_size_, num_layers_, capacity_;
  bool poison_;
  int length_ = 0;
  int speculative_ = 0;
  int complete_ = 0;  // committed positions with every layer done: a prefix
  std::vector<Row> rows_;
  std::vector<int> held_;  // complete committed rows that may still have a hidden state
  KeptStates keeps_;
  int oldest_kept_ = 0;  // complete rows before this have nothing kept
  KvCache cache_;
  bool busy_ = false;
};

}  // namespace specee
