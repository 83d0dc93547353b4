// __syncthreads: all threads of a block that have not exited meet, and learn what became of their predicates.
#pragma once

#include <vector>

#include "emu_runtime.h"

namespace emu {

class Block;

class Barrier {
  public:
    void start_block(unsigned num_warps);
    BarrierResult arrive(Block& block, bool predicate, const Site& site);
    // A thread exits: the others may have waited for it alone.
    void leave(Block& block);

  private:
    void check_warp_agrees(const Site& site);
    void open(Block& block);

    std::vector<unsigned> waiting_;
    unsigned passed_predicates_ = 0;
    BarrierResult result_{};
    // Where the first thread of each warp waits: the threads of a warp must wait at one place.
    std::vector<Site> warp_sites_;
    // One for every other opening: a thread that is still leaving one must not learn of arrivals at the next.
    unsigned phase_ = 0;
    char order_[2];
};

}  // namespace emu
