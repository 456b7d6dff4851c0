// Where a fiber stands, and how the processor goes from one to another. ucontext would do everywhere, and
// asks the kernel about signals at every switch: kernels on the host switch some million times a second.
#pragma once

#include <cstddef>
#include <cstdint>

#if !(defined(__x86_64__) && defined(__ELF__))
#include <ucontext.h>
#endif

namespace emulation {

#if defined(__x86_64__) && defined(__ELF__)

// Stores what the caller has to find again on its stack, and goes on where the other stack was left.
extern "C" void specee_switch_stacks(void** own, void* other);

class Context {
 public:
  // `entry` never returns.
  void begin(char* stack, size_t size, void (*entry)()) {
    // As a call leaves it: a return address below a multiple of 16. Then what the switch takes off the stack.
    uintptr_t* top = reinterpret_cast<uintptr_t*>(reinterpret_cast<uintptr_t>(stack + size) / 16 * 16);
    *--top = 0;
    *--top = reinterpret_cast<uintptr_t>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = 0;
    stack_ = top;
  }
  void switch_to(Context& other) { specee_switch_stacks(&stack_, other.stack_); }

 private:
  void* stack_ = nullptr;
};

#else

class Context {
 public:
  void begin(char* stack, size_t size, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = size;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  void switch_to(Context& other) { swapcontext(&context_, &other.context_); }

 private:
  ucontext_t context_;
};

#endif

}  // namespace emulation
