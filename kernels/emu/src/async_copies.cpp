// Copies are made when their group is waited for, as late as the hardware may; early ones when they are issued, though they arrive no sooner.
#include "async_copies.h"

#include <cstring>

#include "sanitizers.h"

namespace emu {

void AsyncCopies::issue(const Copy& copy, bool early) {
    sanitizer::writes(copy.to, copy.bytes);
    memset(copy.to, 0xFF, copy.bytes);
    copies_.push_back({copy, early, {}});
    if (early) {
        memcpy(copies_.back().taken, copy.from, copy.source_bytes);
    }
    uncommitted_++;
}

void AsyncCopies::commit() {
    groups_.push_back(uncommitted_);
    uncommitted_ = 0;
}

void AsyncCopies::wait(unsigned pending) {
    if (groups_.size() <= pending) {
        return;
    }
    const size_t arrived_groups = groups_.size() - pending;
    size_t arrived = 0;
    for (size_t group = 0; group < arrived_groups; group++) {
        arrived += groups_[group];
    }
    for (size_t at = 0; at < arrived; at++) {
        arrive(copies_[at]);
    }
    copies_.erase(copies_.begin(), copies_.begin() + arrived);
    groups_.erase(groups_.begin(), groups_.begin() + arrived_groups);
}

void AsyncCopies::arrive(const Issued& copy) {
    sanitizer::reads(copy.from, copy.source_bytes);
    sanitizer::writes(copy.to, copy.bytes);
    memset(copy.to, 0, copy.bytes);
    memcpy(copy.to, copy.early ? copy.taken : copy.from, copy.source_bytes);
}

void AsyncCopies::clear() {
    copies_.clear();
    groups_.clear();
    uncommitted_ = 0;
}

}  // namespace emu
