// The barrier of a block.
#include "barrier.h"

#include "block.h"
#include "sanitizers.h"

namespace emu {

void Barrier::start_block(unsigned num_warps) {
    waiting_.clear();
    passed_predicates_ = 0;
    warp_sites_.assign(num_warps, Site{});
}

BarrierResult Barrier::arrive(Block& block, bool predicate, const Site& site) {
    check_warp_agrees(site);
    void* const order = &order_[phase_ % 2];
    sanitizer::release(order);
    passed_predicates_ += predicate;
    waiting_.push_back(current->rank);
    if (waiting_.size() == block.num_live()) {
        open(block);
    } else {
        block.wait(site);
    }
    sanitizer::acquire(order);
    return result_;
}

void Barrier::leave(Block& block) {
    if (!waiting_.empty() && waiting_.size() == block.num_live()) {
        open(block);
    }
}

void Barrier::check_warp_agrees(const Site& site) {
    Site& of_warp = warp_sites_[current->warp];
    if (of_warp.file == nullptr) {
        of_warp = site;
    } else if (!(of_warp == site)) {
        fail(Failure::failed, site, "divergent barrier: other threads of the warp wait at %s:%d (%s)", of_warp.file,
             of_warp.line, of_warp.operation);
    }
}

void Barrier::open(Block& block) {
    const unsigned count = static_cast<unsigned>(waiting_.size());
    result_ = {passed_predicates_ == count, passed_predicates_ > 0, static_cast<int>(passed_predicates_)};
    passed_predicates_ = 0;
    phase_++;
    for (unsigned rank : waiting_) {
        block.wake(rank);
    }
    waiting_.clear();
    warp_sites_.assign(warp_sites_.size(), Site{});
}

}  // namespace emu
