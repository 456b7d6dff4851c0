// Runs one kernel of csrc/cuda on the host: emulator REQUEST ANSWER.
//
// A request is a line "kernel grid.x grid.y grid.z threads seed arguments arrays", a line "kind value" for
// each argument (p: number of an array, or -1 for null; i, l, f), a line with the bytes of each array, and
// then their contents. The answer is the contents of all arrays afterwards.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <new>

#include "kernel_entries.h"

namespace {

using emulation::Parameter, emulation::Values;

[[noreturn]] void die(const std::string& why) {
  std::cout << why << std::endl;
  std::exit(2);
}

struct Released {
  void operator()(unsigned char* data) const { ::operator delete(data, std::align_val_t{256}); }
};
// As aligned as what cudaMalloc gives, and not a byte longer than asked for, so that AddressSanitizer sees
// the end.
struct Array {
  size_t bytes = 0;
  std::unique_ptr<unsigned char, Released> data;
};

struct Request {
  std::string kernel;
  emulation::Index grid;
  unsigned threads = 0;
  uint64_t seed = 0;
  std::string kinds;
  std::vector<std::string> texts;
  std::vector<Array> arrays;
};

Request read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  Request request;
  size_t arguments = 0, arrays = 0;
  in >> request.kernel >> request.grid.x >> request.grid.y >> request.grid.z >> request.threads >>
      request.seed >> arguments >> arrays;
  request.texts.resize(arguments);
  for (std::string& text : request.texts) {
    char kind = 0;
    in >> kind >> text;
    request.kinds += kind;
  }
  request.arrays.resize(arrays);
  for (Array& array : request.arrays) in >> array.bytes;
  in.get();
  for (Array& array : request.arrays) {
    array.data.reset(static_cast<unsigned char*>(::operator new(array.bytes, std::align_val_t{256})));
    in.read(reinterpret_cast<char*>(array.data.get()), static_cast<std::streamsize>(array.bytes));
  }
  if (!in) die(std::string(path) + " is no request");
  return request;
}

Values values_of(const Request& request, const std::vector<Parameter>& parameters) {
  Values values(parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& text = request.texts[i];
    if (parameters[i] == Parameter::float32) {
      values[i].real = std::strtof(text.c_str(), nullptr);
    } else if (parameters[i] != Parameter::pointer) {
      values[i].whole = std::stoll(text);
    } else if (const int array = std::stoi(text); array >= 0) {
      values[i].pointer = request.arrays.at(static_cast<size_t>(array)).data.get();
    }
  }
  return values;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc == 2 && std::string(argv[1]) == "--list") {
    for (const auto& [name, entry] : emulation::entries()) std::cout << name << "\n";
    return 0;
  }
  if (argc != 3) die("emulator REQUEST ANSWER, or emulator --list");
  const Request request = read(argv[1]);
  const emulation::Entry& kernel = emulation::find_entry(request.kernel, request.kinds);
  const Values values = values_of(request, kernel.parameters);
  emulation::run_grid(request.grid, request.threads, request.seed, [&] { kernel.call(values); });
  std::ofstream out(argv[2], std::ios::binary);
  for (const Array& array : request.arrays)
    out.write(reinterpret_cast<const char*>(array.data.get()), static_cast<std::streamsize>(array.bytes));
  return out ? 0 : 2;
} catch (const std::runtime_error& error) {
  die(error.what());
}
