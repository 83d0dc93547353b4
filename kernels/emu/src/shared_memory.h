// A block's shared memory: one dynamic piece and the static arrays, each as long as it was declared and no longer.
#pragma once

#include <cstddef>
#include <vector>

#include "emu_launch.h"

namespace emu {

// Of any card, in bytes.
constexpr size_t MAX_STATIC_SHARED = 48 << 10;

class SharedMemory {
  public:
    explicit SharedMemory(const Launch& shape);
    ~SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    // Poisons everything: the next block must not see what the last one left.
    void start_block();

    void* dynamic() const { return dynamic_.memory; }
    // The array that the variable at `variable` stands for; made at its first use.
    void* array(const void* variable, size_t bytes, const Site& site);

  private:
    struct Piece {
        const void* variable;
        void* memory;
        size_t bytes;
    };
    void* allocate(size_t bytes);

    // Under the thread sanitizer a heap block belongs to the fiber that made it, and others would race with its making.
    char* arena_ = nullptr;
    size_t arena_used_ = 0;
    size_t static_bytes_ = 0;
    // What the static arrays leave to others, and what all of it may come to.
    size_t reserved_bytes_;
    size_t most_bytes_;
    Piece dynamic_;
    std::vector<Piece> arrays_;
};

}  // namespace emu
