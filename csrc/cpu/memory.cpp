#include "cpu/memory.h"

#include <sys/mman.h>

#include <string>
#include <utility>

#include "specee/errors.h"

namespace specee {

Memory::Memory(size_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw OutOfMemoryError("could not reserve " + std::to_string(bytes >> 20) + " MiB for " + what +
                           "; free memory, or ask for a smaller context or a smaller model");
  }
#ifdef MADV_HUGEPAGE
  madvise(data_, bytes, MADV_HUGEPAGE);  // advice only: without it everything works, slower
#endif
}

Memory::~Memory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace specee
