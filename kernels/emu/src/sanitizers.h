// What the address and thread sanitizers must be told: that stacks change, and which meetings order memory.
//
// Without a sanitizer everything here is empty. In the build for the thread sanitizer the runtime itself is compiled without
// instrumentation (its own bookkeeping is no kernel's race) but with EMU_THREAD_SANITIZER, and speaks to it through here.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(EMU_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void* address, unsigned long size);
extern "C" void __tsan_write_range(void* address, unsigned long size);
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif

namespace emu::sanitizer {

#if defined(EMU_THREAD_SANITIZER)
constexpr bool FINDS_RACES = true;
#else
constexpr bool FINDS_RACES = false;
#endif

// A stack that the program can be on, as the sanitizers see it.
struct Stack {
    const void* bottom = nullptr;
    size_t size = 0;
    // The address sanitizer's shadow of frames whose variables moved to the heap.
    void* fake_frames = nullptr;
    void* fiber = nullptr;
};

// Before control goes to `to`. A `from` that will never run again is `last`.
inline void leave([[maybe_unused]] Stack& from, [[maybe_unused]] const Stack& to, [[maybe_unused]] bool last) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_frames, to.bottom, to.size);
#endif
#if defined(EMU_THREAD_SANITIZER)
    // Switching orders nothing: only barriers do.
    __tsan_switch_to_fiber(to.fiber, __tsan_switch_to_fiber_no_sync);
#endif
}

// After control came back to `here`.
inline void resume([[maybe_unused]] Stack& here) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(here.fake_frames, nullptr, nullptr);
#endif
}

// The first thing on a fresh stack; learns the bounds of the stack that control came from.
inline void enter([[maybe_unused]] Stack& from) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (from.bottom == nullptr) {
        from.bottom = bottom;
        from.size = size;
    }
#endif
}

// Frames that were abandoned left marks on the stack's memory.
inline void forget([[maybe_unused]] const Stack& stack) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack.bottom, stack.size);
#endif
}

inline void use_current_fiber([[maybe_unused]] Stack& stack) {
#if defined(EMU_THREAD_SANITIZER)
    stack.fiber = __tsan_get_current_fiber();
#endif
}

inline void make_fiber([[maybe_unused]] Stack& stack) {
#if defined(EMU_THREAD_SANITIZER)
    stack.fiber = __tsan_create_fiber(0);
#endif
}

inline void destroy_fiber([[maybe_unused]] Stack& stack) {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_destroy_fiber(stack.fiber);
#endif
}

// What was done before `release` of an address happened before what is done after a later `acquire` of it.
inline void release([[maybe_unused]] void* address) {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_release(address);
#endif
}

inline void acquire([[maybe_unused]] void* address) {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_acquire(address);
#endif
}

// While the runtime does its own work: it is not instrumented, but what it calls in the C library is watched all the same.
// Belongs to the fiber that says so.
inline void look_away() {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_ignore_thread_begin();
#endif
}

inline void look_again() {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_ignore_thread_end();
#endif
}

// For a fiber that will never run again, said by the one that is at `here`: what it did happened before what follows an
// acquire of `end`. `unwatched` where it had looked away.
inline void abandon([[maybe_unused]] const Stack& fiber, [[maybe_unused]] bool unwatched, [[maybe_unused]] const Stack& here,
                    [[maybe_unused]] void* end) {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_switch_to_fiber(fiber.fiber, __tsan_switch_to_fiber_no_sync);
    if (unwatched) {
        __tsan_ignore_thread_end();
    }
    __tsan_release(end);
    __tsan_switch_to_fiber(here.fiber, __tsan_switch_to_fiber_no_sync);
#endif
}

// Accesses that the runtime makes for a kernel.
inline void reads([[maybe_unused]] const void* address, [[maybe_unused]] size_t size) {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_read_range(const_cast<void*>(address), size);
#endif
}

inline void writes([[maybe_unused]] void* address, [[maybe_unused]] size_t size) {
#if defined(EMU_THREAD_SANITIZER)
    __tsan_write_range(address, size);
#endif
}

}  // namespace emu::sanitizer
