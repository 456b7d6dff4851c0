// Checks and random numbers of the native tests. A failed check prints where, what and the seed, and ends the
// run.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace native {

// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int between(int low, int high) {  // both included
    return low + static_cast<int>(bits() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return between(1, 100) <= percent; }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(static_cast<double>(bits() >> 11) * 0x1p-53);
  }
  std::vector<float> floats(size_t count, float bound) {
    std::vector<float> values(count);
    for (float& value : values) value = uniform(-bound, bound);
    return values;
  }

 private:
  uint64_t state_;
};

// Seed of the running test, printed with every failure; how many checks have passed; and the most threads
// allowed.
struct Run {
  uint64_t seed = 0;
  std::string what;
  std::atomic<uint64_t> checks{0};  // soaks check from two threads
  int threads = 5;
};
inline Run& current() {
  static Run run;
  return run;
}

[[noreturn]] inline void fail(const char* file, int line, const std::string& why) {
  std::printf("%s:%d: %s\n  in %s, seed %llu\n", file, line, why.c_str(), current().what.c_str(),
              static_cast<unsigned long long>(current().seed));
  std::fflush(stdout);
  std::_Exit(1);  // other threads may be running: nothing is taken down under them
}

}  // namespace native

#define CHECK(condition, why)                                                                 \
  do {                                                                                        \
    native::current().checks.fetch_add(1, std::memory_order_relaxed);                         \
    if (!(condition)) native::fail(__FILE__, __LINE__, std::string(#condition ": ") + (why)); \
  } while (0)

// Passes only if the statement throws that class.
#define CHECK_THROWS(error, statement)                                  \
  do {                                                                  \
    bool thrown = false;                                                \
    try {                                                               \
      statement;                                                        \
    } catch (const error&) {                                            \
      thrown = true;                                                    \
    }                                                                   \
    CHECK(thrown, std::string("expected " #error " from " #statement)); \
  } while (0)
