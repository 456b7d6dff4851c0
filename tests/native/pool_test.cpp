// The thread pool: every member takes part in every run, barriers order their writes, shares cover the work
// once.
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
  CHECK_THROWS(specee::ConfigurationError, specee::ThreadPool(0));
}

}  // namespace native
