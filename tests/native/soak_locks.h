// The locks that Python code holds around the engine, as the bindings and the drop-in take them.
#pragma once

#include <mutex>
#include <utility>

#include "bindings/busy.h"

namespace native {

// `python`: with Python's own lock, which bindings let go of for the length of a call, and with the one that
// accelerated models hold for the length of a step. Without them there is what the engine promises by itself:
// calls from several threads, each with sequences of its own.
class Locks {
 public:
  explicit Locks(bool python) : python_(python) {}
  bool python() const { return python_; }

  std::unique_lock<std::mutex> step() { return taken(steps_); }
  std::unique_lock<std::mutex> interpreter() { return taken(interpreter_); }

  // A call of the engine on rows that nobody else may touch meanwhile.
  template <class Call>
  void call(const specee::Work& work, Call run) {
    const auto held = interpreter();
    const specee::Using use(work);
    if (!python_) return run();
    const Released released(interpreter_);
    run();
  }

 private:
  struct Released {
    explicit Released(std::mutex& released) : mutex(released) { mutex.unlock(); }
    ~Released() { mutex.lock(); }
    Released(const Released&) = delete;
    Released& operator=(const Released&) = delete;
    std::mutex& mutex;
  };
  std::unique_lock<std::mutex> taken(std::mutex& mutex) const {
    return python_ ? std::unique_lock<std::mutex>(mutex) : std::unique_lock<std::mutex>();
  }

  const bool python_;
  std::mutex steps_, interpreter_;
};

}  // namespace native
