// A block of threads on one OS thread: its fibers take turns, each until it waits for others.
//
// One Block object runs many blocks of a launch, one after another.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "barrier.h"
#include "emu_launch.h"
#include "fiber.h"
#include "shared_memory.h"
#include "stacks.h"
#include "warp.h"

namespace emu {

class Block {
  public:
    Block(const Kernel& kernel, const Launch& shape, void** parameters, const Schedule& schedule, unsigned worker);
    ~Block();
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    // Runs the block with this index to its end, or to its failure; `former` is hidden until its threads wait for it.
    Outcome run(uint3 index, Former* former = nullptr);

    // The block whose fiber runs on this OS thread.
    static Block& running();

    const char* kernel_name() const { return kernel_.name; }

    // What the parts of a block ask for.
    Fiber& running_fiber() { return fibers_[running_rank_]; }
    unsigned num_live() const { return num_live_; }
    void wait(const Site& site);
    void wait_for_former(const Site& site);
    bool is_early() const { return former_ != nullptr; }
    void wake(unsigned rank) { fibers_[rank].state = FiberState::ready; }
    [[noreturn]] void end_with(Failure failure, std::string message);

    SharedMemory shared;
    Barrier barrier;
    std::vector<Warp> warps;

  private:
    static void fiber_main();
    void start(uint3 index);
    void shuffle_turns();
    void exit_thread();
    bool switch_to_next(bool last);
    bool show_former();
    // Whose turn it is, or nobody's.
    unsigned next_rank();
    unsigned ready_in_warp(unsigned warp) const;
    unsigned ready_after(unsigned turn) const;
    // Never comes back.
    void switch_to_host();
    std::string who_waits() const;

    const Kernel& kernel_;
    const Launch& shape_;
    void** parameters_;
    const Schedule& schedule_;
    std::mt19937 random_;

    unsigned num_threads_;
    unsigned num_live_ = 0;
    std::unique_ptr<Stacks> stacks_;
    std::vector<Fiber> fibers_;
    // Ranks in the order of their turns, and at which turn each rank is.
    std::vector<unsigned> turns_;
    std::vector<unsigned> turn_of_;
    unsigned running_rank_ = 0;
    // Null once it is shown, and who waits for that.
    Former* former_ = nullptr;
    std::vector<unsigned> early_ranks_;

    // The stack that `run` was called on.
    void* host_stack_pointer_ = nullptr;
    sanitizer::Stack host_stack_;
    // Two places: at one, a thread's exit would come before a later thread's start.
    char start_;
    char end_;
    Outcome outcome_;
};

}  // namespace emu
