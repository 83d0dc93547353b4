// What a test may change about the card, from environment variables. Read when a context is made, so that one process
// can meet several cards.
#pragma once

#include <cstddef>
#include <optional>

#include "emu_launch.h"

struct Settings {
    // TOKENMILL_EMU_NO_DEVICE=1: a driver without a card.
    bool no_device = false;
    // TOKENMILL_EMU_MEMORY: bytes of device memory.
    size_t memory_bytes = size_t{4} << 30;
    // TOKENMILL_EMU_FAIL: launch:N or alloc:N, counted from 1 and from the making of the context.
    std::optional<unsigned long> failing_launch;
    std::optional<unsigned long> failing_allocation;
    // TOKENMILL_EMU_STREAMS=eager: work runs when it is enqueued, and not as late as it may.
    bool eager = false;
    emu::Schedule schedule;

    static Settings from_environment();
};
