// Launches: the shape is checked as a card would, then OS threads take blocks until none is left.
#include "emu_launch.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "block.h"
#include "crash.h"
#include "sanitizers.h"

namespace emu {
namespace {

constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_BLOCK_Z = 64;
constexpr unsigned MAX_GRID_YZ = 65535;
// Of a launch, spread over its grid: to hide what kernels have written is to copy it.
constexpr uint64_t EARLY_BLOCKS = 8;

uint64_t product(const dim3& size) { return static_cast<uint64_t>(size.x) * size.y * size.z; }

std::string text(const dim3& size) {
    return "(" + std::to_string(size.x) + ", " + std::to_string(size.y) + ", " + std::to_string(size.z) + ")";
}

// While it lives, this OS thread's own work is no race of a kernel.
struct Unwatched {
    Unwatched() { sanitizer::look_away(); }
    ~Unwatched() { sanitizer::look_again(); }
};

// What the workers of a launch share.
struct Work {
    const Kernel& kernel;
    const Launch& shape;
    const Schedule& schedule;
    uint64_t num_blocks;
    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex{};
    Outcome outcome{};

    uint3 block_index(uint64_t taken) const {
        const uint64_t at = schedule.order == Order::reverse ? num_blocks - 1 - taken : taken;
        const dim3& grid = shape.grid;
        return {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                static_cast<unsigned>(at / grid.x / grid.y)};
    }

    // Runs one block after another on this OS thread.
    void take_blocks(Block& block, unsigned worker) {
        const Unwatched unwatched;
        const CrashReports reports;
        for (uint64_t taken = first(worker); taken < num_blocks && !failed; taken = after(taken)) {
            const bool early = taken % ((num_blocks + EARLY_BLOCKS - 1) / EARLY_BLOCKS) == 0;
            Outcome ended = block.run(block_index(taken), early ? shape.former : nullptr);
            if (ended.failure != Failure::none) {
                const std::lock_guard<std::mutex> lock(mutex);
                failed = true;
                outcome = std::move(ended);
            }
        }
    }

    // Races between blocks show only where two workers take part, whichever comes first: then each has its share.
    uint64_t first(unsigned worker) { return sanitizer::FINDS_RACES ? worker : next++; }
    uint64_t after(uint64_t taken) { return sanitizer::FINDS_RACES ? taken + schedule.workers : next++; }
};

// All workers' blocks are made first and live to the end: workers that handed stacks to each other would come one after the
// other for the thread sanitizer.
void run_workers(Work& work, void** parameters) {
    const Unwatched unwatched;
    std::vector<std::unique_ptr<Block>> blocks;
    for (unsigned worker = 0; worker < std::min<uint64_t>(work.schedule.workers, work.num_blocks); worker++) {
        blocks.push_back(std::make_unique<Block>(work.kernel, work.shape, parameters, work.schedule, worker));
    }
    std::vector<std::thread> others;
    for (unsigned worker = 1; worker < blocks.size(); worker++) {
        others.emplace_back([&work, &blocks, worker] { work.take_blocks(*blocks[worker], worker); });
    }
    work.take_blocks(*blocks[0], 0);
    for (std::thread& other : others) {
        other.join();
    }
}

}  // namespace

Outcome check(const Kernel& kernel, const Launch& shape) {
    const auto refuse = [&](Failure failure, const std::string& why) {
        return Outcome{failure, std::string(kernel.name) + ": " + why};
    };
    const uint64_t threads = product(shape.block);
    const std::string grid = "the grid " + text(shape.grid);
    const std::string block = "the block " + text(shape.block);
    if (threads == 0 || product(shape.grid) == 0) {
        return refuse(Failure::invalid_value, "a launch of nothing: " + grid + ", " + block);
    }
    if (shape.grid.x > INT32_MAX || shape.grid.y > MAX_GRID_YZ || shape.grid.z > MAX_GRID_YZ) {
        return refuse(Failure::invalid_value, grid + " is too large");
    }
    if (threads > MAX_THREADS || shape.block.z > MAX_BLOCK_Z) {
        return refuse(Failure::invalid_value, block + " is too large");
    }
    if (threads > kernel.max_threads) {
        return refuse(Failure::out_of_resources,
                      block + " has more threads than the launch bound, " + std::to_string(kernel.max_threads));
    }
    if (shape.dynamic_shared > shape.most_shared) {
        return refuse(Failure::invalid_value, std::to_string(shape.dynamic_shared) + " bytes of shared memory; a block has " +
                                                  std::to_string(shape.most_shared));
    }
    return {};
}

Outcome launch(const Kernel& kernel, const Launch& shape, void** parameters, const Schedule& schedule) {
    Outcome refused = check(kernel, shape);
    if (refused.failure != Failure::none) {
        return refused;
    }
    Work work{kernel, shape, schedule, product(shape.grid)};
    run_workers(work, parameters);
    if (work.outcome.failure != Failure::none) {
        work.outcome.message = std::string(kernel.name) + ": " + work.outcome.message;
    }
    return std::move(work.outcome);
}

Schedule Schedule::from_environment() {
    Schedule schedule;
    const char* const order = getenv("TOKENMILL_EMU_ORDER");
    if (order != nullptr && strcmp(order, "reverse") == 0) {
        schedule.order = Order::reverse;
    } else if (order != nullptr && strncmp(order, "random", 6) == 0) {
        schedule.order = Order::random;
        schedule.seed = order[6] == ':' ? static_cast<unsigned>(strtoul(order + 7, nullptr, 10)) : 1;
    } else if (order != nullptr && strcmp(order, "early") == 0) {
        schedule.early = true;
    }
    const char* const workers = getenv("TOKENMILL_EMU_WORKERS");
    schedule.workers = workers != nullptr ? static_cast<unsigned>(strtoul(workers, nullptr, 10)) : std::thread::hardware_concurrency();
    schedule.workers = std::max(sanitizer::FINDS_RACES ? 2u : 1u, schedule.workers);
    if (schedule.early) {
        // What is hidden from one block is hidden from all.
        schedule.workers = 1;
    }
    return schedule;
}

}  // namespace emu
