// A team of threads that runs one function at a time, with a barrier inside it.
//
// Who waits spins for a short while, since what it waits for mostly follows at once, and sleeps after that.
// It never yields in between: schedulers take a yield for a thread that wants its share of a busy processor
// given away, while one that sleeps makes room for the very thread it waits for.
// Which thread does what never changes a result: work is split by output, and each output has one owner.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace specee {

class ThreadPool;

struct Range {
  int begin, end;
};

// Item range of member `index` of `size`: contiguous, as even as can be.
Range share(int index, int size, int count);

// What a running function sees: which member it is, and how to wait for the others.
class Team {
 public:
  Team(ThreadPool& pool, int index, int size) : pool_(pool), index_(index), size_(size) {}
  int index() const { return index_; }
  int size() const { return size_; }
  // This member's contiguous share of `count` items.
  Range share(int count) const { return specee::share(index_, size_, count); }
  // Returns when every member has arrived; writes before it are visible after it.
  void barrier();

 private:
  ThreadPool& pool_;
  int index_, size_;
};

class ThreadPool {
 public:
  // `threads` of at least 1, the caller of run() included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }
  // Runs body(team) on every member and returns when all are done, in the default floating-point mode. `body`
  // must not throw: a member that left early would keep the others waiting at the next barrier.
  void run(const std::function<void(Team&)>& body);

 private:
  friend class Team;
  void work(int index);
  void stop();
  void barrier();

  const int size_;
  std::vector<std::thread> workers_;
  const std::function<void(Team&)>* body_ = nullptr;
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> arrived_{0};
  std::atomic<uint64_t> phase_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> asleep_{0};  // members asleep in a barrier, or about to be
  std::mutex mutex_;
  std::condition_variable wake_;    // of workers between runs
  std::condition_variable passed_;  // of members in a barrier
};

}  // namespace specee
