// specee._cuda: the kernels that nvcc compiled, by name.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <map>

#include "bindings/cuda/pointers.h"
#include "bindings/errors.h"
#include "cuda/launch.h"

namespace py = pybind11;

namespace specee::cuda {
namespace {

// One argument, where cudaLaunchKernel finds it.
union Value {
  uintptr_t pointer;
  int32_t int32;
  int64_t int64;
  float float32;
};

const Kernel& find(const std::string& name) {
  const auto& all = kernels();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Kernel& kernel) { return kernel.name == name; });
  if (found == all.end())
    throw ConfigurationError("kernel '" + name + "' is unknown: _cuda.kernels() lists them");
  return *found;
}

Value value_of(const py::handle& argument, Parameter parameter) {
  Value value{};
  if (parameter == Parameter::pointer) value.pointer = pointer_of(argument);
  if (parameter == Parameter::int32) value.int32 = argument.cast<int32_t>();
  if (parameter == Parameter::int64) value.int64 = argument.cast<int64_t>();
  if (parameter == Parameter::float32) value.float32 = argument.cast<float>();
  return value;
}

void launch_kernel(const std::string& name, const std::array<unsigned, 3>& grid, unsigned threads,
                   const py::list& arguments, int device, uintptr_t stream) {
  const Kernel& kernel = find(name);
  const size_t count = kernel.parameters.size();
  if (arguments.size() != count)
    throw ConfigurationError("kernel '" + name + "' takes " + std::to_string(count) +
                             " arguments, and there are " + std::to_string(arguments.size()));
  std::vector<Value> values(count);
  std::vector<void*> places(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = value_of(arguments[i], kernel.parameters[i]);
    places[i] = &values[i];
  }
  launch(kernel, {{grid[0], grid[1], grid[2]}, threads, device, stream}, places.data());
}

std::map<std::string, std::vector<std::string>> kernel_table() {
  const std::map<Parameter, std::string> names = {{Parameter::pointer, "pointer"},
                                                  {Parameter::int32, "int32"},
                                                  {Parameter::int64, "int64"},
                                                  {Parameter::float32, "float32"}};
  std::map<std::string, std::vector<std::string>> table;
  for (const Kernel& kernel : kernels())
    for (const Parameter parameter : kernel.parameters) table[kernel.name].push_back(names.at(parameter));
  return table;
}

}  // namespace
}  // namespace specee::cuda

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The CUDA kernels of specee; specee.cuda checks shapes and launches them.";
  specee::register_errors();
  m.def("kernels", &specee::cuda::kernel_table, "Kernels by name, with the kinds of their parameters.");
  m.def(
      "device_count",
      [] {
        std::string why;
        const int count = specee::cuda::device_count(&why);
        return std::make_pair(count, why);
      },
      "Devices that the driver knows, and why none if it says so.");
  m.def(
      "function",
      [](const std::string& name, int device) {
        return specee::cuda::function(specee::cuda::find(name), device);
      },
      py::arg("kernel"), py::arg("device"), "The driver's handle of a kernel, for graphs.");
  m.def("launch", &specee::cuda::launch_kernel, py::arg("kernel"), py::arg("grid"), py::arg("threads"),
        py::arg("arguments"), py::arg("device"), py::arg("stream"),
        "Put a kernel on a stream. Pointers: an address, None, __cuda_array_interface__ or __dlpack__.");
}
