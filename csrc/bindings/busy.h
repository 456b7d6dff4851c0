// Sequences in use. Flags are set, cleared and looked at under Python's lock only, so looking never gets in
// the way of setting, and what holds the lock throughout (every verb of a sequence) needs to look and not to
// set.
#pragma once

#include "cpu/engine.h"
#include "specee/errors.h"

namespace specee {

inline void require_free(const Sequence& sequence) {
  if (sequence.busy())
    throw RowError(
        "the sequence is in use by a call that has not returned; use a sequence in one thread at a time");
}

// Marks the sequences of a call as in use. Make it before the lock is released; it ends after the lock is
// back.
class Using {
 public:
  explicit Using(const Work& work) : work_(work) {
    for (const WorkItem& item : work_) require_free(*item.sequence);
    mark(true);
  }
  ~Using() { mark(false); }
  Using(const Using&) = delete;
  Using& operator=(const Using&) = delete;

 private:
  void mark(bool busy) const {
    for (const WorkItem& item : work_) item.sequence->set_busy(busy);
  }
  const Work& work_;
};

}  // namespace specee
