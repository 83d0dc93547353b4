// Entry points that tell how many blocks a multiprocessor holds, from threads and shared memory; registers are not known here.
#include <algorithm>

#include "card.h"

DRIVER_API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, Handle, int block_threads, size_t shared_bytes,
                                                                unsigned) {
    BEGIN_CALL
    if (block_threads <= 0) {
        return INVALID_VALUE;
    }
    const Limits limits = card().settings.limits();
    const int by_shared = static_cast<int>(limits.shared / (shared_bytes + Limits::SHARED_OVERHEAD));
    *blocks = std::min({limits.blocks, limits.threads / block_threads, by_shared});
    return SUCCESS;
}

DRIVER_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Handle function, int block_threads, size_t shared_bytes) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, block_threads, shared_bytes, 0);
}

DRIVER_API cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, Handle, int blocks, int) {
    BEGIN_CALL
    const Limits limits = card().settings.limits();
    if (blocks <= 0 || blocks > limits.blocks) {
        return INVALID_VALUE;
    }
    *bytes = limits.shared / static_cast<size_t>(blocks) - Limits::SHARED_OVERHEAD;
    return SUCCESS;
}
