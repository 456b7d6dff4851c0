// specee._graph: the CUDA driver, and programs as its graphs. specee.cuda.graph makes the programs.
#include <pybind11/pybind11.h>

#include "bindings/errors.h"
#include "bindings/graph/steps.h"
#include "graph/builder.h"

namespace py = pybind11;
using namespace specee::graph;

namespace {

Stream stream_of(uintptr_t stream) { return reinterpret_cast<Stream>(stream); }

void launch(const Driver& driver, uintptr_t function, const py::sequence& grid, unsigned threads,
            const py::sequence& arguments, uintptr_t stream) {
  const specee::Grid blocks = specee::grid_of(grid);
  auto values = specee::argument_bytes(arguments);
  std::vector<void*> places;
  for (auto& value : values) places.push_back(value.data());
  driver.context();
  driver.check(
      driver->launch_kernel(reinterpret_cast<Function>(function), blocks.size[0], blocks.size[1],
                            blocks.size[2], threads, 1, 1, 0, stream_of(stream), places.data(), nullptr),
      "launching a kernel");
}

uintptr_t context_of(const Driver& driver) { return reinterpret_cast<uintptr_t>(driver.context()); }

void copy_in(const Driver& driver, Address to, const py::bytes& from, uintptr_t stream, uintptr_t context) {
  const std::string_view data = from;
  const InContext in(driver, reinterpret_cast<Context>(context));
  driver.check(driver->copy_in(to, data.data(), data.size(), stream_of(stream)), "copying to the device");
}

py::bytes copy_out(const Driver& driver, Address from, size_t bytes, uintptr_t stream, uintptr_t context) {
  std::string data(bytes, '\0');
  {
    const py::gil_scoped_release release;
    const InContext in(driver, reinterpret_cast<Context>(context));
    driver.check(driver->copy_out(data.data(), from, bytes, stream_of(stream)), "copying from the device");
    driver.check(driver->stream_synchronize(stream_of(stream)), "waiting for the device");
  }
  return data;
}

}  // namespace

PYBIND11_MODULE(_graph, m) {
  m.doc() = "The CUDA driver, and programs of kernels, conditions and loops as graphs of it.";
  specee::register_errors();
  py::class_<Driver, std::shared_ptr<Driver>>(m, "Driver")
      .def(py::init<const std::string&>(), py::arg("path"))
      .def_property_readonly("version", &Driver::version)
      .def_property_readonly("conditional_missing", &Driver::conditional_missing)
      .def("launch", &launch, py::arg("function"), py::arg("grid"), py::arg("threads"), py::arg("arguments"),
           py::arg("stream"))
      .def("context", &context_of)
      .def("copy_in", &copy_in, py::arg("to"), py::arg("data"), py::arg("stream"), py::arg("context"))
      .def("copy_out", &copy_out, py::arg("address"), py::arg("bytes"), py::arg("stream"),
           py::arg("context"));
  py::class_<LoadedModule>(m, "Module")
      .def(py::init([](const std::shared_ptr<Driver>& driver, const py::bytes& image) {
             return std::make_unique<LoadedModule>(driver, std::string(image));
           }),
           py::arg("driver"), py::arg("image"))
      .def("function", [](const LoadedModule& module, const std::string& name) {
        return reinterpret_cast<uintptr_t>(module.function(name));
      });
  py::class_<RoundGraph>(m, "Graph")
      .def(py::init([](const std::shared_ptr<Driver>& driver, const py::sequence& steps, int conditionals) {
             const Program program = {specee::steps_of(steps), conditionals};
             const py::gil_scoped_release release;
             return std::make_unique<RoundGraph>(driver, program);
           }),
           py::arg("driver"), py::arg("steps"), py::arg("conditionals"))
      .def(
          "upload", [](const RoundGraph& graph, uintptr_t stream) { graph.upload(stream_of(stream)); },
          py::arg("stream"), py::call_guard<py::gil_scoped_release>())
      .def(
          "launch", [](const RoundGraph& graph, uintptr_t stream) { graph.launch(stream_of(stream)); },
          py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}
