// A program as a graph of the driver: one launch runs all of it, conditions and loops included.
#pragma once

#include <optional>
#include <string>

#include "graph/driver.h"
#include "graph/program.h"

namespace specee::graph {

// A program ready to run, by any thread, in the context that was current when it was built. The kernels'
// modules and the arrays of their arguments must outlive it. Throws ConfigurationError for a program that
// makes no sense, BackendUnavailableError where the driver has no conditional nodes, DeviceError where a call
// of it fails; then nothing is left behind.
class RoundGraph {
 public:
  RoundGraph(SharedDriver driver, const Program& program);
  RoundGraph(const RoundGraph&) = delete;
  RoundGraph& operator=(const RoundGraph&) = delete;
  ~RoundGraph();

  // Copies it to the device, so that the first launch does not have to.
  void upload(Stream stream) const;
  void launch(Stream stream) const;

 private:
  SharedDriver driver_;
  Context context_;
  std::optional<LoadedModule> conditions_;  // where there are any
  Executable executable_ = nullptr;
};

}  // namespace specee::graph
