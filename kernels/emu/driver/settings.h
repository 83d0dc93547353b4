// What a test may change about the card, from environment variables. Read when a context is made, so that one process
// can meet several cards.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "emu_launch.h"

// What a multiprocessor holds, by NVIDIA's programming guide.
struct Limits {
    // Static arrays and dynamic shared memory of a block whose function never asked for more.
    static constexpr size_t SHARED_UNASKED = 48 << 10;
    // What the system takes of every block's shared memory.
    static constexpr size_t SHARED_OVERHEAD = 1 << 10;

    size_t shared;
    int threads;
    int blocks;

    size_t shared_per_block() const { return shared - SHARED_OVERHEAD; }
};

struct Settings {
    // TOKENMILL_EMU_NO_DEVICE=1: a driver without a card.
    bool no_device = false;
    // TOKENMILL_EMU_CAPABILITY: the card's compute capability, as in 9.0.
    int capability_major = 9;
    int capability_minor = 0;
    // TOKENMILL_EMU_DRIVER: the newest CUDA that the driver knows, as in 13.0; read when the driver is asked.
    int driver_version = 13000;
    // TOKENMILL_EMU_MEMORY: bytes of device memory.
    size_t memory_bytes = size_t{4} << 30;
    // TOKENMILL_EMU_FAIL: launch:N or alloc:N, counted from 1 and from the making of the context; or dies:N, where the N-th kernel
    // of the process fails, and so does every later one, in any context.
    std::optional<unsigned long> failing_launch;
    std::optional<unsigned long> failing_allocation;
    std::optional<unsigned long> deadly_launch;
    // TOKENMILL_EMU_STREAMS=eager: work runs when it is enqueued, and not as late as it may.
    bool eager = false;
    // TOKENMILL_EMU_LAUNCHED: a file that gets the name of each kernel that has run, once a process.
    std::string launched;
    emu::Schedule schedule;

    static Settings from_environment();
    // Of the capability's cards.
    Limits limits() const;
};
