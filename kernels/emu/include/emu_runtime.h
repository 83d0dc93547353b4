// What kernel code asks of the runtime while it runs: who am I, wait for others, give me shared memory, copy later.
//
// Every call takes the place in the kernel that made it, for reports: `Site::here` as a default argument is evaluated
// where the outermost call stands.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "emu_types.h"

namespace emu {

// A place in a kernel, and what it does there.
struct Site {
    const char* file;
    int line;
    const char* operation;

    static constexpr Site here(const char* operation, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line, operation};
    }
};

// One place has one text, nearly always: its address tells soonest.
inline bool operator==(const Site& a, const Site& b) {
    const auto same = [](const char* x, const char* y) { return x == y || strcmp(x, y) == 0; };
    return a.line == b.line && same(a.file, b.file) && same(a.operation, b.operation);
}

// Why a launch failed, as the driver's error codes.
enum class Failure : int {
    none = 0,
    invalid_value = 1,
    out_of_resources = 701,
    misaligned = 716,
    failed = 719,
};

// A CUDA thread's coordinates.
struct Thread {
    uint3 index;
    uint3 block;
    dim3 block_size;
    dim3 grid_size;
    // Linear index in the block, and the same as warp and lane.
    unsigned rank;
    unsigned warp;
    unsigned lane;
};

// The thread whose fiber runs now; null outside of kernels.
extern thread_local const Thread* current;

// Ends the launch with a report that names the thread and the site. Never returns to the kernel.
[[noreturn]] void fail(Failure failure, const Site& site, const char* format, ...) __attribute__((format(printf, 3, 4)));

// Waits for all threads of the block that have not exited; false predicates are counted as zeros.
struct BarrierResult {
    bool all;
    bool any;
    int count;
};
BarrierResult barrier(bool predicate, const Site& site);

// A meeting of the lanes in `mask`: each brings a pointer to its operands, the last to come runs `exchange` once for all.
// `operands` is indexed by lane; `present` are the lanes that came, which is the mask without lanes that have exited.
using Exchange = void (*)(uint32_t present, void** operands);
void collective(uint32_t mask, const Site& site, void* operands, Exchange exchange);

// The same for instructions that the hardware wants from all 32 lanes (`.aligned`).
void whole_warp(const Site& site, void* operands, Exchange exchange);

// Shared memory: full of 0xFF bytes, which is NaN in every float format, when a block starts.
void* dynamic_shared();
void* static_shared(const void* variable, size_t bytes, const Site& site);

// A copy that arrives when its group is waited for, and no earlier: until then the destination is poison.
// Bytes beyond `source_bytes` become zero.
void copy_async(void* to, const void* from, unsigned bytes, unsigned source_bytes, const Site& site);
void copy_commit();
// Waits until at most `pending` committed groups are under way.
void copy_wait(unsigned pending);

// Waits for the kernel launched before. A thread that does not ask is an error where launches overlap; in the early order, what was
// read or written sooner shows.
void wait_for_former_kernel(const Site& site);

}  // namespace emu
