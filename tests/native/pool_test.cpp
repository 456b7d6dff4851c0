// The thread pool: every member takes part in every run, barriers order their writes, shares cover the work
// once.
#include <chrono>
#include <thread>
#include <vector>

#include "cpu/thread_pool.h"
#include "specee/errors.h"
#include "tests.h"

namespace native {
namespace {

void rotate_many_times(specee::Team& team, std::vector<int>& even, std::vector<int>& odd, int rounds) {
  const size_t me = static_cast<size_t>(team.index()), next = (me + 1) % static_cast<size_t>(team.size());
  for (int round = 0; round < rounds; ++round) {
    std::vector<int>& from = round % 2 == 0 ? even : odd;
    std::vector<int>& to = round % 2 == 0 ? odd : even;
    to[me] = from[next] + 1;
    team.barrier();
  }
}

// One member after the other comes late to a barrier: by long enough for the others to sleep there, or by
// about as long as they look before they do.
void come_late(specee::ThreadPool& pool, int microseconds) {
  const int members = pool.size();
  std::vector<int> written(static_cast<size_t>(members));
  std::vector<int> seen(static_cast<size_t>(members));
  pool.run([&](specee::Team& team) {
    const size_t me = static_cast<size_t>(team.index());
    for (int late = 0; late < members; ++late) {
      if (late == team.index()) {
        std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
        for (int& value : written) ++value;
      }
      team.barrier();
      seen[me] += written[me];
      team.barrier();
    }
  });
  for (const int count : seen)
    CHECK(count == members * (members + 1) / 2, "a member passed a barrier before a late one's writes");
}

}  // namespace

void test_thread_pool(Random& random) {
  const int threads = random.between(1, current().threads), rounds = 2 * random.between(0, 10);
  specee::ThreadPool pool(threads);
  CHECK(pool.size() == threads, "size is " + std::to_string(pool.size()));
  for (int run = 0; run < 20; ++run) {
    const int items = random.between(0, 50);
    std::vector<int> taken(static_cast<size_t>(items)), even(static_cast<size_t>(threads)), odd(even.size());
    pool.run([&](specee::Team& team) {
      const specee::Range mine = team.share(items);
      for (int i = mine.begin; i < mine.end; ++i) ++taken[static_cast<size_t>(i)];
      rotate_many_times(team, even, odd, rounds);
    });
    for (const int count : taken) CHECK(count == 1, "an item was taken " + std::to_string(count) + " times");
    for (const int count : even) CHECK(count == rounds, "a member saw " + std::to_string(count) + " rounds");
  }
  come_late(pool, 2000);
  come_late(pool, random.between(20, 60));
  CHECK_THROWS(specee::ConfigurationError, specee::ThreadPool(0));
}

}  // namespace native
