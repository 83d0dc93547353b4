// A thread's cp.async copies between issue and arrival.
#pragma once

#include <cstddef>
#include <vector>

#include "emu_runtime.h"

namespace emu {

class AsyncCopies {
  public:
    static constexpr unsigned MAX_BYTES = 16;

    struct Copy {
        void* to;
        const void* from;
        unsigned bytes;
        unsigned source_bytes;
    };

    // Poisons the destination: whoever reads before waiting reads NaN. An `early` copy takes what is there now, as the hardware may too.
    void issue(const Copy& copy, bool early);
    void commit();
    void wait(unsigned pending);

    bool under_way() const { return !copies_.empty(); }
    void clear();

  private:
    struct Issued : Copy {
        bool early;
        unsigned char taken[MAX_BYTES];
    };
    static void arrive(const Issued& copy);

    // In order of issue; `groups_` says how many copies each committed group has.
    std::vector<Issued> copies_;
    std::vector<size_t> groups_;
    size_t uncommitted_ = 0;
};

}  // namespace emu
