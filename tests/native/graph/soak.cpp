// The graph builder under sanitizers: random programs, with every call of the driver failing in turn. The
// fake driver is in this program, which is also the library that the builder loads.
#include <cstring>
#include <functional>
#include <iostream>

#include "../check.h"
#include "graph/builder.h"
#include "specee/errors.h"

extern "C" {
void fake_reset(int version, int has_context);
void fake_fail(int64_t calls, int status);
int64_t fake_calls();
const char* fake_log();
const char* fake_live();
}

namespace {

using namespace specee::graph;

template <class T>
std::vector<unsigned char> bytes(T value) {
  std::vector<unsigned char> data(sizeof value);
  std::memcpy(data.data(), &value, sizeof value);
  return data;
}

// Programs on `numbers` and `flags`; every conditional is set right before its node.
struct Maker {
  native::Random& random;
  const LoadedModule& module;
  std::vector<int>& numbers;
  std::vector<int>& flags;
  int conditionals = 0;

  Step toy(const char* kernel, std::vector<std::vector<unsigned char>> arguments) {
    return {Launch{module.function(kernel), {1, 1, 1}, 32, 0, std::move(arguments)}};
  }

  std::vector<Step> steps(int depth) {
    std::vector<Step> made;
    for (int left = random.between(0, 4); left > 0; --left) {
      if (depth == 4 || random.chance(60)) {
        const int at = random.between(0, static_cast<int>(numbers.size()) - 1);
        made.push_back(toy("toy_mix", {bytes(numbers.data()), bytes(at), bytes(random.between(1, 99))}));
        continue;
      }
      const bool repeats = random.chance(40);
      const int number = conditionals++, flag = number % static_cast<int>(flags.size());
      const SetConditions set = {{{number, reinterpret_cast<Address>(&flags[static_cast<size_t>(flag)])}}};
      made.push_back(
          toy("toy_store", {bytes(flags.data()), bytes(flag), bytes(int64_t{random.between(0, 1)})}));
      made.push_back({set});
      Conditional conditional = {number, repeats, steps(depth + 1)};
      conditional.body.push_back(toy("toy_store", {bytes(flags.data()), bytes(flag), bytes(int64_t{0})}));
      if (repeats) conditional.body.push_back({set});
      made.push_back({std::move(conditional)});
    }
    return made;
  }
};

void build(uint64_t seed) {
  native::Random random(seed);
  std::vector<int> numbers(5), flags(3);
  const auto driver = std::make_shared<const Driver>("");
  const LoadedModule module(driver, "an image");
  Maker maker = {random, module, numbers, flags};
  Program program = {maker.steps(0), 0};
  program.conditionals = maker.conditionals;
  const RoundGraph graph(driver, program);
  graph.upload(nullptr);
  graph.launch(nullptr);
}

// Whether it failed, with an error that is meant.
bool fails(uint64_t seed) {
  try {
    build(seed);
  } catch (const specee::DeviceError&) {
    return true;
  } catch (const specee::BackendUnavailableError&) {
    return true;
  }
  return false;
}

void check_nothing_left() {
  CHECK(std::string(fake_live()) == "0 modules, 0 graphs, 0 bodies, 0 executables", fake_live());
  CHECK(std::string(fake_log()).find("misuse") == std::string::npos, fake_log());
}

}  // namespace

int main(int, char** argv) {
  const uint64_t first = std::stoull(argv[1]), rounds = std::stoull(argv[2]);
  int64_t failures = 0;
  for (uint64_t seed = first; seed < first + rounds; ++seed) {
    native::current().seed = seed;
    native::current().what = "graph soak";
    fake_reset(12040, 1);
    CHECK(!fails(seed), "nothing was to fail");
    check_nothing_left();
    const int64_t calls = fake_calls();
    for (int64_t call = 1; call <= calls; ++call) {
      fake_reset(12040, 1);
      fake_fail(call, 2);
      failures += fails(seed) ? 1 : 0;
      check_nothing_left();
    }
  }
  std::cout << failures << " failures\n";
}
