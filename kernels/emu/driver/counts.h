// What a test may ask how often it happened, in this whole process.
#pragma once

#include <cstdint>

struct Counts {
    // Kernels that ran, those of graphs among them.
    uint64_t launches;
    // Launches of graphs.
    uint64_t replays;
    // How often anybody waited for work of any stream that had not run.
    uint64_t waits;
    // Copies from and to the host.
    uint64_t uploads;
    uint64_t downloads;
    // Of device memory, and of pinned host memory.
    uint64_t allocations;
};

// Changed by calls into the driver, of which there is one at a time.
inline Counts counts;
