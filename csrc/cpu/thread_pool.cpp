#include "cpu/thread_pool.h"

#include <chrono>
#include <system_error>

#include "cpu/float_mode.h"
#include "specee/errors.h"

namespace specee {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How long to spin: between runs, while the caller picks a token and plans the next step; and in a barrier,
// where members that all have a processor arrive within a few microseconds of each other.
constexpr std::chrono::microseconds kRunPatience(300);
constexpr std::chrono::microseconds kBarrierPatience(40);

// Spins until ready() holds, or for that long; whether it held.
template <class Ready>
bool spin_until(Ready ready, std::chrono::microseconds patience) {
  const auto look = [&](int times) {
    for (int i = 0; i < times; ++i) {
      if (ready()) return true;
      relax();
    }
    return false;
  };
  if (look(256)) return true;  // mostly, without asking for the time
  const auto end = std::chrono::steady_clock::now() + patience;
  while (std::chrono::steady_clock::now() < end)
    if (look(32)) return true;
  return false;
}

}  // namespace

Range share(int index, int size, int count) {
  const int64_t wide = count;
  return {static_cast<int>(wide * index / size), static_cast<int>(wide * (index + 1) / size)};
}

void Team::barrier() { pool_.barrier(); }

ThreadPool::ThreadPool(int threads) : size_(threads) {
  if (threads < 1)
    throw ConfigurationError("a thread pool needs at least 1 thread, not " + std::to_string(threads));
  try {
    for (int index = 1; index < threads; ++index) workers_.emplace_back([this, index] { work(index); });
  } catch (const std::system_error&) {
    stop();
    throw OutOfMemoryError("the system would not start " + std::to_string(threads) +
                           " threads; ask for fewer with SPECEE_NUM_THREADS");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_.store(true);
    epoch_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(Team&)>& body) {
  const DefaultFloatMode mode;
  Team self(*this, 0, size_);
  if (size_ == 1) return body(self);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    body_ = &body;
    epoch_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  body(self);
  barrier();  // every member has left the body: it may be destroyed
}

void ThreadPool::work(int index) {
  uint64_t seen = 0;
  for (;;) {
    const auto next = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(next, kRunPatience)) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, next);
    }
    ++seen;  // run() does not start another epoch before this member has passed the last barrier
    if (stopping_.load()) return;
    const DefaultFloatMode mode;
    Team team(*this, index, size_);
    (*body_)(team);
    barrier();
  }
}

void ThreadPool::barrier() {
  if (size_ == 1) return;
  const uint64_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    // Either this store is seen by a member about to sleep, or its count is seen here: both are in one order.
    phase_.store(phase + 1, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
      }
      passed_.notify_all();
    }
    return;
  }
  const auto passed = [&] { return phase_.load(std::memory_order_seq_cst) != phase; };
  if (spin_until(passed, kBarrierPatience)) return;
  asleep_.fetch_add(1, std::memory_order_seq_cst);
  {
    std::unique_lock<std::mutex> lock(mutex_);
    passed_.wait(lock, passed);
  }
  asleep_.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace specee
