// Zeroed memory straight from the system, on huge pages where it gives them: weights and caches are streamed,
// and 4 KiB pages cost a tenth of the bandwidth in address translation.
#pragma once

#include <cstddef>

namespace specee {

class Memory {
 public:
  Memory() = default;
  // Throws OutOfMemoryError naming `what` if the system has no room.
  Memory(size_t bytes, const char* what);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  char* data() const { return static_cast<char*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace specee
