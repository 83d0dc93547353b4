// Pieces come from the heap, where the address sanitizer guards both of their ends.
#include "shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "sanitizers.h"

namespace emu {
namespace {

constexpr size_t ALIGNMENT = 128;
constexpr size_t ARENA_BYTES = 1 << 20;

// Not memset, which the sanitizers would take for a write by the running thread.
void poison(void* memory, size_t bytes) {
#if defined(__x86_64__)
    asm volatile("rep stosb" : "+D"(memory), "+c"(bytes) : "a"(0xFF) : "memory");
#else
    volatile unsigned char* at = static_cast<unsigned char*>(memory);
    for (size_t left = bytes; left > 0; left--) {
        *at++ = 0xFF;
    }
#endif
}

}  // namespace

SharedMemory::SharedMemory(const Launch& shape)
    : reserved_bytes_(std::max(shape.dynamic_shared, shape.reserved_shared)), most_bytes_(shape.most_shared) {
#if defined(EMU_THREAD_SANITIZER)
    arena_ = static_cast<char*>(
        mmap(nullptr, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
#endif
    dynamic_ = {nullptr, allocate(shape.dynamic_shared), shape.dynamic_shared};
}

SharedMemory::~SharedMemory() {
    if (arena_ != nullptr) {
        munmap(arena_, ARENA_BYTES);
        return;
    }
    free(dynamic_.memory);
    for (const Piece& piece : arrays_) {
        free(piece.memory);
    }
}

void SharedMemory::start_block() {
    poison(dynamic_.memory, dynamic_.bytes);
    for (const Piece& piece : arrays_) {
        poison(piece.memory, piece.bytes);
    }
}

void* SharedMemory::array(const void* variable, size_t bytes, const Site& site) {
    for (const Piece& piece : arrays_) {
        if (piece.variable == variable) {
            return piece.memory;
        }
    }
    static_bytes_ += bytes;
    if (static_bytes_ > MAX_STATIC_SHARED) {
        fail(Failure::out_of_resources, site, "%zu bytes of static shared memory; a block has %zu", static_bytes_,
             MAX_STATIC_SHARED);
    }
    if (static_bytes_ + reserved_bytes_ > most_bytes_) {
        fail(Failure::out_of_resources, site, "%zu bytes of static and %zu of dynamic shared memory; a block has %zu",
             static_bytes_, reserved_bytes_, most_bytes_);
    }
    arrays_.push_back({variable, allocate(bytes), bytes});
    poison(arrays_.back().memory, bytes);
    return arrays_.back().memory;
}

void* SharedMemory::allocate(size_t bytes) {
    if (arena_ != nullptr) {
        char* const memory = arena_ + arena_used_;
        arena_used_ += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        return memory;
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, ALIGNMENT, bytes) != 0) {
        fprintf(stderr, "emu: no memory for %zu bytes of shared memory\n", bytes);
        abort();
    }
    return memory;
}

}  // namespace emu
