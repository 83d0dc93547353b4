// What kernels have written since work last ran that no kernel overlaps. Of a row of kernels that each may start before the one
// before it has ended, any may be ahead of all others up to where it waits: there it must find nothing of theirs.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "emu_launch.h"
#include "memory.h"

class FormerKernels : public emu::Former {
  public:
    // Before a kernel runs: what there is to hide from it.
    emu::Former* before_kernel(const Memory& memory, bool overlaps);
    // Before other work runs, which waits for all kernels, and for which all wait.
    void end_row();

    void hide() override;
    bool show() override;

  private:
    using Bytes = std::vector<char>;
    void begin_row(const Memory& memory);
    bool is_untouched() const;

    bool in_row_ = false;
    // Allocations that no kernel of the row has written, as they are.
    std::map<char*, Bytes> unwritten_;
    // Allocations that one has written, and what they hold while it is hidden.
    std::map<char*, Bytes> written_;
    // Whether the running kernel may have written the others by now.
    bool has_begun_ = false;
};
