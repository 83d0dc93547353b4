// Meetings of lanes.
#include "warp.h"

#include "block.h"
#include "sanitizers.h"

namespace emu {
void Warp::start_block(unsigned index, unsigned num_lanes) {
    index_ = index;
    live_ = num_lanes == 32 ? ~0u : (1u << num_lanes) - 1;
    for (Meeting& meeting : meetings_) {
        meeting.arrived = 0;
    }
}

void Warp::meet(Block& block, uint32_t mask, bool whole, const Site& site, void* operands, Exchange exchange) {
    const uint32_t lane_bit = 1u << current->lane;
    if (!(mask & lane_bit)) {
        fail(Failure::failed, site, "a lane calls with a mask of %08x, in which it is not", mask);
    }
    if (whole && live_ != ~0u) {
        fail(Failure::failed, site, "needs all 32 lanes of the warp, and %d are running", __builtin_popcount(live_));
    }
    Meeting& meeting = find(mask, whole, site, exchange);
    meeting.operands[current->lane] = operands;
    meeting.arrived |= lane_bit;
    void* const order = &meeting.order[meeting.phase % 2];
    sanitizer::release(order);
    if (meeting.arrived == (mask & live_)) {
        sanitizer::acquire(order);
        finish(block, meeting);
    } else {
        block.wait(site);
    }
    sanitizer::acquire(order);
}

Warp::Meeting& Warp::find(uint32_t mask, bool whole, const Site& site, Exchange exchange) {
    Meeting* free_place = nullptr;
    for (Meeting& meeting : meetings_) {
        if (meeting.arrived == 0) {
            free_place = &meeting;
        } else if (meeting.mask == mask) {
            if (!(meeting.site == site)) {
                fail(Failure::failed, site, "divergent warp collective: other lanes of the mask %08x are at %s:%d (%s)", mask,
                     meeting.site.file, meeting.site.line, meeting.site.operation);
            }
            return meeting;
        }
    }
    if (free_place == nullptr) {
        free_place = &meetings_.emplace_back();
    }
    free_place->mask = mask;
    free_place->whole = whole;
    free_place->site = site;
    free_place->exchange = exchange;
    return *free_place;
}

void Warp::finish(Block& block, Meeting& meeting) {
    if (meeting.exchange != nullptr) {
        // The kernel's code: what it reads and writes is watched.
        block.running_fiber().look_again();
        meeting.exchange(meeting.arrived, meeting.operands);
        block.running_fiber().look_away();
    }
    sanitizer::release(&meeting.order[meeting.phase % 2]);
    const uint32_t arrived = meeting.arrived;
    meeting.arrived = 0;
    meeting.phase++;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (arrived >> lane & 1) {
            block.wake(index_ * 32 + lane);
        }
    }
}

void Warp::leave(Block& block, unsigned lane) {
    live_ &= ~(1u << lane);
    for (Meeting& meeting : meetings_) {
        const bool waited_for = meeting.arrived != 0 && (meeting.mask >> lane & 1);
        if (waited_for && meeting.whole) {
            fail(Failure::failed, meeting.site, "needs all 32 lanes of the warp, and lane %u has exited", lane);
        }
        if (waited_for && meeting.arrived == (meeting.mask & live_)) {
            sanitizer::acquire(&meeting.order[meeting.phase % 2]);
            finish(block, meeting);
        }
    }
}

}  // namespace emu
