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

// Spins until ready() holds. After a while it lets other threads run between looks, which matters when there
// are more threads than cores; `give_up` (may be null) ends the wait after that many microseconds.
template <class Ready>
bool spin_until(Ready ready, const std::chrono::microseconds* give_up) {
  for (int i = 0; i < 4096; ++i) {
    if (ready()) return true;
    relax();
  }
  const auto start = std::chrono::steady_clock::now();
  while (!ready()) {
    std::this_thread::yield();
    if (give_up != nullptr && std::chrono::steady_clock::now() - start > *give_up) return false;
  }
  return true;
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
    constexpr std::chrono::microseconds patience(200);
    if (!spin_until(next, &patience)) {
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
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  spin_until([&] { return phase_.load(std::memory_order_acquire) != phase; }, nullptr);
}

}  // namespace specee
