// What the fake driver hands out. Handles are addresses, and `Objects` knows which of them are alive.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "../check.h"
#include "../cuda/entries.h"
#include "graph/driver_api.h"

namespace fake {

using namespace specee::graph;

struct Kernel {
  std::string name;
  const emulation::Entry* entry = nullptr;  // null for set_conditions
};

struct FakeModule {
  std::map<std::string, std::unique_ptr<Kernel>> kernels;
};

struct FakeGraph;
struct FakeNode {
  int id = 0;
  std::vector<FakeNode*> after;
  // A kernel, with the bytes of its arguments.
  const Kernel* kernel = nullptr;
  unsigned grid[3] = {}, threads = 0;
  std::vector<std::vector<unsigned char>> arguments;
  // Or a conditional.
  Handle handle = 0;
  int kind = 0;
  std::unique_ptr<FakeGraph> body;
  Graph body_handle = nullptr;
};

struct FakeGraph {
  int id = 0;
  FakeGraph* parent = nullptr;
  std::vector<std::unique_ptr<FakeNode>> nodes;
  std::set<Handle> handles;
};

struct FakeExecutable {
  std::unique_ptr<FakeGraph> graph;  // a copy
};

// Runs nodes, each after those that it waits for, else in an order drawn from `random`. Says what is wrong
// with a graph that cannot run, or nothing.
std::string run(const FakeGraph& graph, native::Random& random);

// A copy with nothing shared.
std::unique_ptr<FakeGraph> copy(const FakeGraph& graph);

// What is wrong with a graph that is to be instantiated, or nothing.
std::string unsound(const FakeGraph& graph);

// How often kernels have run, by name.
std::map<std::string, int64_t>& ran();

// Runs one kernel on the arguments at these places.
void run_kernel(const Kernel& kernel, const unsigned (&grid)[3], unsigned threads, void* const* arguments,
                native::Random& random);

}  // namespace fake
