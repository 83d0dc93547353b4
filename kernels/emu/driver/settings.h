// What a test may change about the card, from environment variables. Read when a context is made, so that one process
// can meet several cards.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "emu_launch.h"

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
};
