// Stacks for the fibers of a block, kept for later launches: mapping pages and touching them first costs more than a small
// kernel does.
#pragma once

#include <memory>
#include <vector>

#include "sanitizers.h"

namespace emu {

class Stacks {
  public:
    // As many as a block has threads; of an earlier launch where there are any.
    static std::unique_ptr<Stacks> take(unsigned count);
    static void give_back(std::unique_ptr<Stacks> stacks);

    ~Stacks();
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;

    // Whether the address lies just below the stack, where one that is too small runs into.
    static bool is_guard(const sanitizer::Stack& stack, const void* address);

    sanitizer::Stack& at(unsigned index) { return stacks_[index]; }

  private:
    explicit Stacks(unsigned count);

    char* memory_;
    std::vector<sanitizer::Stack> stacks_;
};

}  // namespace emu
