// Steps of a program as Python has them: tuples whose first member says what they are.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>
#include <vector>

#include "graph/program.h"
#include "specee/errors.h"

namespace specee {

inline std::vector<std::vector<unsigned char>> argument_bytes(const pybind11::sequence& arguments) {
  std::vector<std::vector<unsigned char>> found;
  for (const pybind11::handle argument : arguments) {
    const auto data = argument.cast<std::string_view>();
    found.emplace_back(data.begin(), data.end());
  }
  return found;
}

struct Grid {
  unsigned size[3];
};

inline Grid grid_of(const pybind11::sequence& grid) {
  if (grid.size() != 3)
    throw ConfigurationError("a grid of " + std::to_string(grid.size()) + " numbers: allowed are 3");
  return {{grid[0].cast<unsigned>(), grid[1].cast<unsigned>(), grid[2].cast<unsigned>()}};
}

std::vector<graph::Step> steps_of(const pybind11::sequence& steps);

// ("launch", function, grid, threads, shared bytes, arguments), ("set", [(conditional, address)]),
// ("if" or "while", conditional, body). Throws ConfigurationError.
inline graph::Step step_of(const pybind11::tuple& step) {
  const auto kind = step.empty() ? std::string() : step[0].cast<std::string>();
  if (kind == "launch" && step.size() == 6) {
    const Grid grid = grid_of(step[2].cast<pybind11::sequence>());
    return {graph::Launch{reinterpret_cast<graph::Function>(step[1].cast<uintptr_t>()),
                          {grid.size[0], grid.size[1], grid.size[2]},
                          step[3].cast<unsigned>(),
                          step[4].cast<unsigned>(),
                          argument_bytes(step[5].cast<pybind11::sequence>())}};
  }
  if (kind == "set" && step.size() == 2) {
    graph::SetConditions set;
    for (const pybind11::handle item : step[1].cast<pybind11::sequence>()) {
      const auto pair = item.cast<pybind11::tuple>();
      set.conditions.push_back({pair[0].cast<int>(), pair[1].cast<uint64_t>()});
    }
    return {std::move(set)};
  }
  if ((kind == "if" || kind == "while") && step.size() == 3)
    return {graph::Conditional{step[1].cast<int>(), kind == "while",
                               steps_of(step[2].cast<pybind11::sequence>())}};
  throw ConfigurationError("step '" + kind + "' of " + std::to_string(step.size()) +
                           " members: allowed are launch (6), set (2), if and while (3)");
}

inline std::vector<graph::Step> steps_of(const pybind11::sequence& steps) {
  std::vector<graph::Step> found;
  for (const pybind11::handle step : steps) found.push_back(step_of(step.cast<pybind11::tuple>()));
  return found;
}

}  // namespace specee
