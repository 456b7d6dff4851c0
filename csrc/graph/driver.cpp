#include "graph/driver.h"

#include <dlfcn.h>

#include "specee/errors.h"

namespace specee::graph {
namespace {

std::string dotted(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Looks a function up; false where the library has none of that name.
template <class Pointer>
bool find(void* library, const char* symbol, Pointer& pointer) {
  pointer = reinterpret_cast<Pointer>(dlsym(library, symbol));
  return pointer != nullptr;
}

}  // namespace

Driver::Driver(const std::string& path) {
  try {
    load(path);
  } catch (...) {
    if (library_ != nullptr) dlclose(library_);
    throw;
  }
}

Driver::~Driver() { dlclose(library_); }

void Driver::load(const std::string& path) {
  library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) {
    const char* why = dlerror();
    throw BackendUnavailableError("the CUDA driver '" + path + "' cannot be loaded (" +
                                  (why != nullptr ? why : "no reason given") +
                                  "): install NVIDIA's driver, of CUDA " + dotted(kConditionalVersion) +
                                  " or newer for conditional graphs");
  }
  std::string absent;
#define SPECEE_FIND(name, symbol, parameters) \
  if (!find(library_, #symbol, functions_.name)) absent += absent.empty() ? #symbol : ", " #symbol;
  SPECEE_DRIVER_FUNCTIONS(SPECEE_FIND)
#undef SPECEE_FIND
  if (!absent.empty())
    throw BackendUnavailableError("the CUDA driver '" + path + "' has no " + absent +
                                  ": it is older than CUDA 11.4, or no CUDA driver; update NVIDIA's driver");
  if (const Status status = functions_.init(0); status != 0)
    throw BackendUnavailableError("the CUDA driver cannot start (" + words(status) +
                                  "): is there a device, and may this user use it? nvidia-smi lists them");
  check(functions_.driver_version(&version_), "asking for the driver's version");
  missing_ = find_conditional();
}

std::string Driver::find_conditional() {
  if (version_ < kConditionalVersion)
    return "the driver is of CUDA " + dotted(version_) + ": conditional graph nodes need CUDA " +
           dotted(kConditionalVersion) + ", so a driver of release 550 or newer";
  std::string absent;
#define SPECEE_FIND(name, symbol, parameters) \
  if (!find(library_, #symbol, functions_.name)) absent += absent.empty() ? #symbol : ", " #symbol;
  SPECEE_CONDITIONAL_FUNCTIONS(SPECEE_FIND)
#undef SPECEE_FIND
  if (absent.empty()) return "";
  return "the driver says that it is of CUDA " + dotted(version_) + ", and has no " + absent +
         ": conditional graph nodes need CUDA " + dotted(kConditionalVersion) + "; reinstall the driver";
}

std::string Driver::words(Status status) const {
  const char *name = nullptr, *said = nullptr;
  if (functions_.error_name(status, &name) != 0 || name == nullptr) name = "unknown error";
  if (functions_.error_string(status, &said) != 0 || said == nullptr) said = "no words for it";
  return std::string(name) + ", " + std::to_string(status) + ": " + said;
}

void Driver::check(Status status, const std::string& what) const {
  if (status != 0) throw DeviceError(what + " failed: " + words(status));
}

Context Driver::context() const {
  Context found = nullptr;
  check(functions_.current_context(&found), "asking for the current CUDA context");
  if (found == nullptr)
    throw DeviceError("no CUDA context is current in this thread: put an array on the device first");
  return found;
}

InContext::InContext(const Driver& driver, Context context) : driver_(driver) {
  driver.check(driver->current_context(&before_), "asking for the current CUDA context");
  if (before_ == context) return;
  driver.check(driver->set_context(context), "entering a CUDA context");
  changed_ = true;
}

InContext::~InContext() {
  if (changed_) driver_->set_context(before_);
}

LoadedModule::LoadedModule(SharedDriver driver, const std::string& image)
    : driver_(std::move(driver)), context_(driver_->context()) {
  // The image of PTX ends with a zero, which a std::string has behind its last byte.
  driver_->check((*driver_)->module_load(&module_, image.c_str()), "loading a module of kernels");
}

LoadedModule::~LoadedModule() {
  const Driver& driver = *driver_;
  Context before = nullptr;  // of whichever thread drops it
  const bool there = driver->current_context(&before) == 0 && before == context_;
  if (!there) driver->set_context(context_);
  driver->module_unload(module_);
  if (!there) driver->set_context(before);
}

Function LoadedModule::function(const std::string& name) const {
  Function found = nullptr;
  driver_->check((*driver_)->module_function(&found, module_, name.c_str()),
                 "looking up kernel '" + name + "'");
  return found;
}

}  // namespace specee::graph
