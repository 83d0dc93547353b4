// A CUDA thread as a stack of its own, that runs until it waits.
#pragma once

#include "async_copies.h"
#include "emu_runtime.h"
#include "sanitizers.h"

namespace emu {

enum class FiberState : unsigned char { ready, waiting, done };

struct Fiber {
    Thread thread;
    FiberState state = FiberState::done;
    // Where it waits.
    Site site{};
    AsyncCopies copies;
    // For the kernel launched before.
    bool waited = false;
    void* stack_pointer = nullptr;
    // Of Stacks, which outlive their fibers.
    sanitizer::Stack* stack = nullptr;
    // Whether it is in the runtime, and not in the kernel.
    bool unwatched = false;

    void look_away();
    void look_again();

    // Makes the fiber start with `entry`, which must not return, when it is first switched to.
    void prepare(void (*entry)());
};

// From here to the end of the scope a fiber is in the runtime.
class InRuntime {
  public:
    explicit InRuntime(Fiber& fiber) : fiber_(fiber) { fiber_.look_away(); }
    ~InRuntime() { fiber_.look_again(); }
    InRuntime(const InRuntime&) = delete;
    InRuntime& operator=(const InRuntime&) = delete;

  private:
    Fiber& fiber_;
};

// Stores the running stack's registers, and continues where `to` was stored.
void switch_stack(void** from, void* to);

}  // namespace emu
