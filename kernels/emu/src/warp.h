// A warp: its lanes meet in collectives, each named by the mask of lanes that take part.
#pragma once

#include <cstdint>
#include <deque>

#include "emu_runtime.h"

namespace emu {

class Block;

class Warp {
  public:
    void start_block(unsigned index, unsigned num_lanes);
    void meet(Block& block, uint32_t mask, bool whole, const Site& site, void* operands, Exchange exchange);
    // A lane exits: the others may have waited for it alone.
    void leave(Block& block, unsigned lane);

  private:
    // Lanes that wait for each other, or a free place for some where `arrived` is empty.
    struct Meeting {
        uint32_t mask = 0;
        uint32_t arrived = 0;
        bool whole = false;
        Site site{};
        Exchange exchange = nullptr;
        void* operands[32] = {};
        // As in Barrier: one for every other meeting in this place.
        unsigned phase = 0;
        char order[2] = {};
    };

    Meeting& find(uint32_t mask, bool whole, const Site& site, Exchange exchange);
    void finish(Block& block, Meeting& meeting);

    unsigned index_ = 0;
    uint32_t live_ = 0;
    // A deque, as waiting lanes hold on to their meeting while others are added.
    std::deque<Meeting> meetings_;
};

}  // namespace emu
