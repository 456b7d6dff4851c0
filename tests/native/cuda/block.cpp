#include "block.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "../check.h"
#include "context.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && defined(__ELF__)
// The System V calling convention: six registers are the caller's, and so is the stack.
asm(R"(
.text
.type specee_switch_stacks, @function
.globl specee_switch_stacks
.hidden specee_switch_stacks
specee_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size specee_switch_stacks, .-specee_switch_stacks
)");
#endif

namespace emulation {

Index thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t kStack = 256 * 1024;

enum class Waits { no, warp, block, ended };

struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  Waits waits = Waits::no;
  unsigned exchanges = 0;
};

struct Warp {
  alignas(16) unsigned char slots[2][kLanes][kLargestExchange];
  int arrived = 0;
};

class Scheduler {
 public:
  void run(unsigned threads, native::Random& random, const std::function<void()>& body);
  void wait(Waits what);
  const unsigned char* exchange(const void* value, size_t bytes);
  void* shared(size_t bytes);

 private:
  static void enter();
  void start(unsigned thread);
  void resume(unsigned thread);
  void settle();
  void release(unsigned first, unsigned count);
  [[noreturn]] void stuck() const;

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  std::vector<unsigned> ready_;
  unsigned threads_ = 0, current_ = 0, live_ = 0, at_barrier_ = 0;
  Context own_;
  const void* own_stack_ = nullptr;
  size_t own_stack_size_ = 0;
  const std::function<void()>* body_ = nullptr;
  unsigned char* shared_ = nullptr;
  size_t shared_bytes_ = 0;
};

Scheduler scheduler;

// AddressSanitizer wants to know whose stack is in use.
void announce(void** fake, const void* stack, size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake, stack, size);
#else
  (void)fake, (void)stack, (void)size;
#endif
}

void arrive(void* fake, const void** stack, size_t* size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, stack, size);
#else
  (void)fake, (void)stack, (void)size;
#endif
}

void Scheduler::enter() {
  arrive(nullptr, &scheduler.own_stack_, &scheduler.own_stack_size_);
  (*scheduler.body_)();
  scheduler.fibers_[scheduler.current_]->waits = Waits::ended;
  announce(nullptr, scheduler.own_stack_, scheduler.own_stack_size_);
  scheduler.fibers_[scheduler.current_]->context.switch_to(scheduler.own_);
}

void Scheduler::start(unsigned thread) {
  if (fibers_.size() <= thread) fibers_.push_back(std::make_unique<Fiber>());
  Fiber& fiber = *fibers_[thread];
  fiber.context.begin(fiber.stack.get(), kStack, &Scheduler::enter);
  fiber.waits = Waits::no;
  fiber.exchanges = 0;
  ready_.push_back(thread);
}

void Scheduler::resume(unsigned thread) {
  current_ = thread;
  thread_index = {thread, 0, 0};
  void* fake = nullptr;
  announce(&fake, fibers_[thread]->stack.get(), kStack);
  own_.switch_to(fibers_[thread]->context);
  arrive(fake, nullptr, nullptr);
}

void Scheduler::wait(Waits what) {
  Fiber& fiber = *fibers_[current_];
  fiber.waits = what;
  void* fake = nullptr;
  announce(&fake, own_stack_, own_stack_size_);
  fiber.context.switch_to(own_);
  arrive(fake, &own_stack_, &own_stack_size_);
}

void Scheduler::release(unsigned first, unsigned count) {
  for (unsigned thread = first; thread < first + count; ++thread) {
    if (fibers_[thread]->waits == Waits::ended) continue;
    fibers_[thread]->waits = Waits::no;
    ready_.push_back(thread);
  }
}

// What the thread that has just stopped means for the others. As on a device, a barrier waits for the threads
// that have not ended, and a warp's exchange for all of its lanes.
void Scheduler::settle() {
  const Waits waits = fibers_[current_]->waits;
  if (waits == Waits::warp && ++warps_[current_ / kLanes].arrived == kLanes) {
    warps_[current_ / kLanes].arrived = 0;
    release(current_ / kLanes * kLanes, kLanes);
  }
  if (waits == Waits::block) ++at_barrier_;
  if (waits == Waits::ended) --live_;
  if (live_ > 0 && at_barrier_ == live_) {
    at_barrier_ = 0;
    release(0, threads_);
  }
}

void Scheduler::stuck() const {
  int counts[4] = {};
  for (unsigned thread = 0; thread < threads_; ++thread) ++counts[static_cast<int>(fibers_[thread]->waits)];
  const auto number = [&](Waits waits) { return std::to_string(counts[static_cast<int>(waits)]); };
  throw std::runtime_error(
      "block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) + ", " +
      std::to_string(block_index.z) + "): threads wait for others that never come: " + number(Waits::warp) +
      " in an exchange, " + number(Waits::block) + " at a barrier, " + number(Waits::ended) + " ended");
}

void Scheduler::run(unsigned threads, native::Random& random, const std::function<void()>& body) {
  body_ = &body;
  threads_ = live_ = threads;
  at_barrier_ = 0;
  warps_.assign(threads / kLanes, Warp{});
  ready_.clear();
  for (unsigned thread = 0; thread < threads; ++thread) start(thread);
  while (live_ > 0) {
    if (ready_.empty()) stuck();
    const size_t choice = static_cast<size_t>(random.between(0, static_cast<int>(ready_.size()) - 1));
    std::swap(ready_[choice], ready_.back());
    const unsigned thread = ready_.back();
    ready_.pop_back();
    resume(thread);
    settle();
  }
  ::operator delete(shared_, std::align_val_t{256});
  shared_ = nullptr;
}

// Two sets of slots in turn: a lane that is through with one exchange may already be in the next while others
// still read, but not in the one after that.
const unsigned char* Scheduler::exchange(const void* value, size_t bytes) {
  Warp& warp = warps_[current_ / kLanes];
  const unsigned turn = fibers_[current_]->exchanges++ % 2;
  std::memcpy(warp.slots[turn][current_ % kLanes], value, bytes);
  wait(Waits::warp);
  return warp.slots[turn][0];
}

void* Scheduler::shared(size_t bytes) {
  if (shared_ == nullptr) {
    shared_ = static_cast<unsigned char*>(::operator new(bytes, std::align_val_t{256}));
    std::memset(shared_, 0xff, shared_bytes_ = bytes);
  }
  if (bytes != shared_bytes_) {
    std::printf("shared memory of %zu bytes, and of %zu in the same block\n", bytes, shared_bytes_);
    std::exit(1);
  }
  return shared_;
}

}  // namespace

void run_grid(const Index& grid, unsigned threads, uint64_t seed, const std::function<void()>& body) {
  native::Random random(seed);
  grid_size = grid;
  block_size = {threads, 1, 1};
  std::vector<Index> blocks;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
  while (!blocks.empty()) {
    std::swap(blocks[static_cast<size_t>(random.between(0, static_cast<int>(blocks.size()) - 1))],
              blocks.back());
    block_index = blocks.back();
    blocks.pop_back();
    scheduler.run(threads, random, body);
  }
}

void block_barrier() { scheduler.wait(Waits::block); }
const unsigned char* exchange(const void* value, size_t bytes) { return scheduler.exchange(value, bytes); }
void* shared_memory(size_t bytes) { return scheduler.shared(bytes); }

}  // namespace emulation
