// Runs the native tests without Python, so that sanitizers and emulators can watch the engine alone.
//
//   driver [--rounds N] [--seed N] [--threads N] [--soak N] [--require ISA]...
//
// Every instruction set that the processor runs is tested, or only those that --require names, which fails
// unless they are among them. --soak: about N requests from two threads on one engine, none without it.
// A failure prints its seed: repeat it with --rounds 1 --soak 1 --seed N.
#include <algorithm>
#include <cstring>

#include "cpu/isa.h"
#include "tests.h"

namespace {

struct Options {
  int rounds = 50, soak = 0;
  uint64_t seed = 1;
  std::vector<std::string> required;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--rounds") options.rounds = std::stoi(value);
    if (name == "--seed") options.seed = std::stoull(value);
    if (name == "--soak") options.soak = std::stoi(value);
    if (name == "--threads") native::current().threads = std::stoi(value);
    if (name == "--require") options.required.push_back(value);
  }
  return options;
}

template <class Test>
void repeat(const Options& options, const std::string& what, int times, Test test) {
  const uint64_t before = native::current().checks;
  native::current().what = what;
  for (int round = 0; round < std::max(1, times); ++round) {
    native::current().seed = options.seed + static_cast<uint64_t>(round);
    native::Random random(native::current().seed);
    test(random);
  }
  std::printf("  %-24s %9llu checks\n", what.c_str(),
              static_cast<unsigned long long>(native::current().checks - before));
  std::fflush(stdout);
}

void test_isa(const Options& options, const std::string& isa) {
  const specee::Kernels& kernels = specee::select_kernels(isa);
  const auto with = [&kernels](void (*test)(const specee::Kernels&, native::Random&)) {
    return [&kernels, test](native::Random& random) { test(kernels, random); };
  };
  repeat(options, isa + " linear", 4 * options.rounds, with(native::test_linear));
  repeat(options, isa + " quantised linear", 4 * options.rounds, with(native::test_quant_linear));
  repeat(options, isa + " quantise row", 2 * options.rounds, with(native::test_quantise_row));
  repeat(options, isa + " rms_norm", options.rounds, with(native::test_rms_norm));
  repeat(options, isa + " attention", 2 * options.rounds, with(native::test_attention));
  repeat(options, isa + " logits", 2 * options.rounds, with(native::test_logit_runs));
  repeat(options, isa + " sweep", options.rounds / 5, with(native::test_sweep));
  repeat(options, isa + " sequences", options.rounds / 2,
         [&isa](native::Random& random) { native::test_sequences(isa, random); });
  repeat(options, isa + " draft heads", options.rounds / 2,
         [&isa](native::Random& random) { native::test_draft_heads(isa, random); });
  repeat(options, isa + " shadow", options.rounds / 4,
         [&isa](native::Random& random) { native::test_shadow(isa, random); });
  repeat(options, isa + " drafter", options.rounds / 8,
         [&isa](native::Random& random) { native::test_drafter(isa, random); });
  repeat(options, isa + " rounds", options.rounds / 4,
         [&isa](native::Random& random) { native::test_rounds(isa, random); });
  repeat(options, isa + " early exits", options.rounds / 8,
         [&isa](native::Random& random) { native::test_exits(isa, random); });
}

// With the fastest kernels: what is soaked is all that is above them.
void soak(const Options& options, const std::string& isa) {
  if (options.soak <= 0) return;
  std::printf("soak of seed %llu\n", static_cast<unsigned long long>(options.seed));
  repeat(options, "soak", options.soak / native::kSoakRequests,
         [&isa](native::Random& random) { native::test_soak(isa, random); });
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const std::vector<std::string> isas = specee::supported_isas();
  for (const std::string& name : options.required)
    if (std::find(isas.begin(), isas.end(), name) == isas.end()) {
      std::printf("%s is required, and this processor does not run it\n", name.c_str());
      return 1;
    }
  repeat(options, "thread pool", options.rounds / 2, native::test_thread_pool);
  repeat(options, "tiles", options.rounds, native::test_tiles);
  repeat(options, "linear in plain tiles", 4 * options.rounds, native::test_tile_linear);
  repeat(options, "policy", options.rounds, native::test_policy);
  const std::vector<std::string>& tested = options.required.empty() ? isas : options.required;
  for (const std::string& isa : tested) test_isa(options, isa);
  soak(options, tested.back());
  std::printf("native tests passed: %llu checks\n",
              static_cast<unsigned long long>(native::current().checks.load()));
  return 0;
}
