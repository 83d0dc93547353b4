// One mapping for all stacks of a block. Below each lies a page that nobody may touch: a kernel that needs more stack than
// there is ends the process, and does not write into its neighbour.
#include "stacks.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace emu {
namespace {

constexpr size_t GUARD = 16 << 10;
constexpr size_t USABLE = 112 << 10;
constexpr size_t STRIDE = GUARD + USABLE;

struct Idle {
    std::mutex mutex;
    std::map<size_t, std::vector<std::unique_ptr<Stacks>>> by_count;
};

Idle& idle() {
    // Never destroyed: a launch may end while the process does.
    static Idle* const stacks = new Idle;
    return *stacks;
}

char* map_stacks(size_t bytes) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "emu: no address space for %zu bytes of stacks\n", bytes);
        abort();
    }
    return static_cast<char*>(memory);
}

}  // namespace

std::unique_ptr<Stacks> Stacks::take(unsigned count) {
    const std::lock_guard<std::mutex> lock(idle().mutex);
    std::vector<std::unique_ptr<Stacks>>& known = idle().by_count[count];
    if (known.empty()) {
        return std::unique_ptr<Stacks>(new Stacks(count));
    }
    std::unique_ptr<Stacks> taken = std::move(known.back());
    known.pop_back();
    return taken;
}

void Stacks::give_back(std::unique_ptr<Stacks> stacks) {
    const std::lock_guard<std::mutex> lock(idle().mutex);
    idle().by_count[stacks->stacks_.size()].push_back(std::move(stacks));
}

bool Stacks::is_guard(const sanitizer::Stack& stack, const void* address) {
    const char* const bottom = static_cast<const char*>(stack.bottom);
    return address >= bottom - GUARD && address < bottom;
}

Stacks::Stacks(unsigned count) : memory_(map_stacks(STRIDE * count)), stacks_(count) {
    for (unsigned at = 0; at < count; at++) {
        char* const lowest = memory_ + STRIDE * at;
        mprotect(lowest, GUARD, PROT_NONE);
        stacks_[at].bottom = lowest + GUARD;
        stacks_[at].size = USABLE;
        sanitizer::make_fiber(stacks_[at]);
    }
}

Stacks::~Stacks() {
    for (sanitizer::Stack& stack : stacks_) {
        sanitizer::destroy_fiber(stack);
    }
    munmap(memory_, STRIDE * stacks_.size());
}

}  // namespace emu
