// Requests of all kinds from two threads on one engine, many of which end badly: the engine goes on, and each
// good one is what it is by itself. tests/integrations/test_soak.py does the same from Python.
#include <algorithm>
#include <thread>
#include <utility>

#include "soak_client.h"
#include "tests.h"
#include "tiny_engine.h"

namespace native {
namespace {

constexpr int kLatest = 4;  // step of a mishap

// Every kind of mishap in turn; the first of each comes for certain, at the first step.
std::vector<SoakRequest> some_requests(specee::Engine& plain, int count, Random& random) {
  std::vector<SoakRequest> requests;
  for (int i = 0; i < count; ++i) {
    const Mishap mishap = static_cast<Mishap>(i % kMishaps);
    requests.push_back(soak_request(plain.config(), mishap, i < kMishaps ? 0 : kLatest, random));
    for (SoakText& text : requests.back().texts) text.expected = alone(plain, text);
  }
  return requests;
}

}  // namespace

void test_soak(const std::string& isa, Random& random) {
  specee::ModelConfig config = tiny_config(random);
  config.max_position = kSoakPositions;
  config.hidden_size = std::min(config.hidden_size, 40);  // many requests, not large ones
  const specee::WeightTypes types = tiny_types(config, random);
  const uint64_t weights = random.bits();
  const int threads = random.between(1, std::min(2, current().threads));
  const auto plain = tiny_engine(config, types, isa, 1, weights);
  const auto engine = tiny_engine(config, types, isa, threads, weights);
  Locks locks(current().seed % 2 == 0);
  const auto client = [&] {
    auto requests = some_requests(*plain, kSoakRequests / 2, random);
    return SoakClient(*engine, plain->sequence(8, specee::Dtype::f32, false), locks, std::move(requests));
  };
  SoakClient one = client(), other = client();
  one.meet(other);
  other.meet(one);
  std::thread beside([&other] { other.run(); });
  one.run();
  beside.join();
  for (const Mishap mishap : {Mishap::bad_input, Mishap::interrupted, Mishap::callback, Mishap::abandoned})
    CHECK(one.count(mishap) > 0 && other.count(mishap) > 0,
          "mishap " + std::to_string(static_cast<int>(mishap)) + " never came");
  CHECK(one.accepted() + other.accepted() > 0, "no draft was accepted");
}

}  // namespace native
