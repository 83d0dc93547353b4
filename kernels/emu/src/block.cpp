// Turns of a block's threads, from the first to the last exit.
#include "block.h"

#include <algorithm>
#include <cstdlib>
#include <map>

namespace emu {

thread_local const Thread* current = nullptr;

namespace {

thread_local Block* running_block = nullptr;

constexpr unsigned NOBODY = ~0u;

uint3 coordinates(unsigned rank, const dim3& size) {
    return {rank % size.x, rank / size.x % size.y, rank / size.x / size.y};
}

}  // namespace

Block::Block(const Kernel& kernel, const Launch& shape, void** parameters, const Schedule& schedule, unsigned worker)
    : shared(shape),
      kernel_(kernel),
      shape_(shape),
      parameters_(parameters),
      schedule_(schedule),
      random_(schedule.seed * 1000003u + worker),
      num_threads_(shape.block.x * shape.block.y * shape.block.z),
      stacks_(Stacks::take(num_threads_)),
      fibers_(num_threads_),
      turns_(num_threads_),
      turn_of_(num_threads_) {
    warps.resize((num_threads_ + 31) / 32);
    for (unsigned rank = 0; rank < num_threads_; rank++) {
        fibers_[rank].stack = &stacks_->at(rank);
        turns_[rank] = schedule.order == Order::reverse ? num_threads_ - 1 - rank : rank;
    }
}

Block::~Block() {
    // Not necessarily the OS thread that ran the block.
    sanitizer::use_current_fiber(host_stack_);
    for (Fiber& fiber : fibers_) {
        if (fiber.state != FiberState::done) {
            sanitizer::abandon(*fiber.stack, fiber.unwatched, host_stack_, &end_);
        }
        sanitizer::forget(*fiber.stack);
    }
    sanitizer::acquire(&end_);
    Stacks::give_back(std::move(stacks_));
}

Block& Block::running() { return *running_block; }

Outcome Block::run(uint3 index, Former* former) {
    sanitizer::use_current_fiber(host_stack_);
    start(index);
    former_ = former;
    if (former_ != nullptr) {
        former_->hide();
    }
    running_block = this;
    running_rank_ = turns_[0];
    current = &running_fiber().thread;
    sanitizer::release(&start_);
    sanitizer::leave(host_stack_, *running_fiber().stack, false);
    switch_stack(&host_stack_pointer_, running_fiber().stack_pointer);
    sanitizer::resume(host_stack_);
    sanitizer::acquire(&end_);
    current = nullptr;
    running_block = nullptr;
    if (former_ != nullptr) {
        former_->show();
    }
    return std::move(outcome_);
}

void Block::start(uint3 index) {
    outcome_ = Outcome{};
    num_live_ = num_threads_;
    early_ranks_.clear();
    shared.start_block();
    barrier.start_block(static_cast<unsigned>(warps.size()));
    for (unsigned warp = 0; warp < warps.size(); warp++) {
        warps[warp].start_block(warp, std::min(32u, num_threads_ - warp * 32));
    }
    for (unsigned rank = 0; rank < num_threads_; rank++) {
        Fiber& fiber = fibers_[rank];
        fiber.thread = {coordinates(rank, shape_.block), index, shape_.block, shape_.grid, rank, rank / 32, rank % 32};
        fiber.state = FiberState::ready;
        fiber.copies.clear();
        fiber.waited = false;
        fiber.prepare(fiber_main);
    }
    shuffle_turns();
}

void Block::shuffle_turns() {
    if (schedule_.order == Order::random) {
        std::shuffle(turns_.begin(), turns_.end(), random_);
    }
    for (unsigned turn = 0; turn < num_threads_; turn++) {
        turn_of_[turns_[turn]] = turn;
    }
}

void Block::fiber_main() {
    Block& block = running();
    sanitizer::enter(block.host_stack_);
    sanitizer::acquire(&block.start_);
    block.kernel_.call(block.parameters_);
    sanitizer::release(&block.end_);
    block.exit_thread();
    abort();  // An exited fiber never gets another turn.
}

void Block::exit_thread() {
    Fiber& fiber = running_fiber();
    fiber.look_away();
    if (fiber.copies.under_way()) {
        fail(Failure::failed, Site::here("exit"), "the thread exits with cp.async copies that nobody waited for");
    }
    if (shape_.overlaps && !fiber.waited) {
        fail(Failure::failed, Site::here("exit"), "the launch overlaps the one before, and the thread never waited for that");
    }
    fiber.state = FiberState::done;
    num_live_--;
    warps[fiber.thread.warp].leave(*this, fiber.thread.lane);
    barrier.leave(*this);
    if (switch_to_next(true)) {
        return;
    }
    if (num_live_ > 0) {
        end_with(Failure::failed, "deadlock, the other threads have exited: " + who_waits());
    }
    switch_to_host();
}

void Block::wait(const Site& site) {
    Fiber& fiber = running_fiber();
    fiber.state = FiberState::waiting;
    fiber.site = site;
    if (!switch_to_next(false)) {
        end_with(Failure::failed, "deadlock: " + who_waits());
    }
}

void Block::wait_for_former(const Site& site) {
    running_fiber().waited = true;
    if (is_early()) {
        early_ranks_.push_back(running_rank_);
        wait(site);
    }
}

// Once nobody can go on without it. False where it was shown already.
bool Block::show_former() {
    if (!is_early()) {
        return false;
    }
    const bool untouched = former_->show();
    former_ = nullptr;
    if (!untouched) {
        end_with(Failure::failed, "device memory is written before the kernel before was waited for");
    }
    for (unsigned rank : early_ranks_) {
        wake(rank);
    }
    return true;
}

// False where no thread is ready, itself included.
bool Block::switch_to_next(bool last) {
    const unsigned rank = next_rank();
    if (rank == NOBODY) {
        return show_former() && switch_to_next(last);
    }
    Fiber& from = running_fiber();
    Fiber& to = fibers_[rank];
    if (&to == &from) {
        return true;
    }
    if (last) {
        from.look_again();
    }
    running_rank_ = rank;
    current = &to.thread;
    sanitizer::leave(*from.stack, *to.stack, last);
    switch_stack(&from.stack_pointer, to.stack_pointer);
    sanitizer::resume(*from.stack);
    return true;
}

// The orders differ in how far warps drift apart. Forward, all keep step. In reverse, one goes on as long as any of its lanes
// can, which shows a buffer that is filled again while others still read it. At random, anything between.
unsigned Block::next_rank() {
    if (schedule_.order == Order::reverse) {
        const unsigned of_warp = ready_in_warp(running_rank_ / 32);
        if (of_warp != NOBODY) {
            return of_warp;
        }
    }
    const bool random = schedule_.order == Order::random;
    return ready_after(random ? static_cast<unsigned>(random_()) % num_threads_ : turn_of_[running_rank_]);
}

unsigned Block::ready_in_warp(unsigned warp) const {
    const unsigned first = warp * 32;
    for (unsigned rank = std::min(first + 32, num_threads_); rank-- > first;) {
        if (fibers_[rank].state == FiberState::ready) {
            return rank;
        }
    }
    return NOBODY;
}

// The next in the order of turns; the one whose turn it was comes last.
unsigned Block::ready_after(unsigned turn) const {
    for (unsigned step = 1; step <= num_threads_; step++) {
        const unsigned rank = turns_[(turn + step) % num_threads_];
        if (fibers_[rank].state == FiberState::ready) {
            return rank;
        }
    }
    return NOBODY;
}

void Block::switch_to_host() {
    Fiber& from = running_fiber();
    from.look_again();
    sanitizer::leave(*from.stack, host_stack_, true);
    switch_stack(&from.stack_pointer, host_stack_pointer_);
}

// The threads' stacks are abandoned where they are: a failed kernel is not unwound, as on the device.
void Block::end_with(Failure failure, std::string message) {
    outcome_ = {failure, std::move(message)};
    switch_to_host();
    abort();  // The host does not come back to a failed block.
}

std::string Block::who_waits() const {
    std::map<std::string, int> counts;
    for (const Fiber& fiber : fibers_) {
        if (fiber.state == FiberState::waiting) {
            const Site& site = fiber.site;
            counts[std::string(site.operation) + " at " + site.file + ":" + std::to_string(site.line)]++;
        }
    }
    std::string list;
    for (const auto& [place, count] : counts) {
        list += (list.empty() ? "" : ", ") + std::to_string(count) + " threads wait in " + place;
    }
    return list;
}

}  // namespace emu
