// A program as the builder takes it: kernels in order, and bodies that a condition runs or repeats.
#pragma once

#include <variant>
#include <vector>

#include "graph/driver_api.h"

namespace specee::graph {

struct Launch {
  Function function;
  unsigned grid[3];
  unsigned threads;
  unsigned shared_bytes;
  std::vector<std::vector<unsigned char>> arguments;  // the bytes of each
};

// Conditions take what int32 numbers on the device say now. `conditional` counts the program's conditionals.
struct SetCondition {
  int conditional;
  Address value;
};
struct SetConditions {
  std::vector<SetCondition> conditions;
};

struct Step;
struct Conditional {
  int number;  // 0 .. Program::conditionals - 1, each once
  bool repeats;
  std::vector<Step> body;
};

struct Step {
  std::variant<Launch, SetConditions, Conditional> what;
};

struct Program {
  std::vector<Step> steps;
  int conditionals = 0;
};

}  // namespace specee::graph
