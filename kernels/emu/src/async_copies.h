// A thread's cp.async copies between issue and arrival.
#pragma once

#include <cstddef>
#include <vector>

#include "emu_runtime.h"

namespace emu {

class AsyncCopies {
  public:
    // Poisons the destination: whoever reads before waiting reads NaN.
    void issue(void* to, const void* from, unsigned bytes, unsigned source_bytes);
    void commit();
    void wait(unsigned pending);

    bool under_way() const { return !copies_.empty(); }
    void clear();

  private:
    struct Copy {
        void* to;
        const void* from;
        unsigned bytes;
        unsigned source_bytes;
    };
    static void arrive(const Copy& copy);

    // In order of issue; `groups_` says how many copies each committed group has.
    std::vector<Copy> copies_;
    std::vector<size_t> groups_;
    size_t uncommitted_ = 0;
};

}  // namespace emu
