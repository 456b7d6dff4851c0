// The CUDA driver of this machine, loaded when it is first wanted, and modules of kernels in it.
#pragma once

#include <memory>
#include <string>

#include "graph/driver_api.h"

namespace specee::graph {

class Driver {
 public:
  // Loads the library, by name or path. Throws BackendUnavailableError, with what is missing and what to do.
  explicit Driver(const std::string& path);
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;
  ~Driver();

  const Functions* operator->() const { return &functions_; }
  int version() const { return version_; }
  // Why there are no conditional nodes; empty where there are.
  const std::string& conditional_missing() const { return missing_; }

  // Throws DeviceError with the driver's words unless `status` is success.
  void check(Status status, const std::string& what) const;
  // The context of the calling thread. Throws DeviceError where there is none.
  Context context() const;

 private:
  void load(const std::string& path);
  std::string words(Status status) const;
  std::string find_conditional();

  void* library_ = nullptr;
  Functions functions_;
  int version_ = 0;
  std::string missing_;
};

using SharedDriver = std::shared_ptr<const Driver>;

// Has a context be the calling thread's, which may have none or that of another device, until the end of the
// block. CUDA's runtime binds a thread by itself; calls of the driver do not.
class InContext {
 public:
  // Throws DeviceError where the driver refuses.
  InContext(const Driver& driver, Context context);
  InContext(const InContext&) = delete;
  InContext& operator=(const InContext&) = delete;
  ~InContext();

 private:
  const Driver& driver_;
  Context before_ = nullptr;
  bool changed_ = false;
};

// Kernels in the current context, from a cubin, a fatbin or PTX. The driver's functions die with it.
class LoadedModule {
 public:
  LoadedModule(SharedDriver driver, const std::string& image);
  LoadedModule(const LoadedModule&) = delete;
  LoadedModule& operator=(const LoadedModule&) = delete;
  ~LoadedModule();

  Function function(const std::string& name) const;
  Context context() const { return context_; }

 private:
  SharedDriver driver_;
  Context context_;
  Module module_ = nullptr;
};

}  // namespace specee::graph
