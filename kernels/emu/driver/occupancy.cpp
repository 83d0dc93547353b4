// Entry points that tell how many blocks a multiprocessor holds, from threads and shared memory; registers are not known here.
#include <algorithm>

#include "card.h"

namespace {

constexpr int MAX_BLOCKS = 32;
constexpr int MAX_THREADS = 2048;
constexpr size_t SHARED_BYTES = 228 << 10;
// Of every block's shared memory the system takes one KiB.
constexpr size_t SHARED_OVERHEAD = 1 << 10;

}  // namespace

DRIVER_API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, Handle, int block_threads, size_t shared_bytes,
                                                                unsigned) {
    BEGIN_CALL
    if (block_threads <= 0) {
        return INVALID_VALUE;
    }
    const int by_shared = static_cast<int>(SHARED_BYTES / (shared_bytes + SHARED_OVERHEAD));
    *blocks = std::min({MAX_BLOCKS, MAX_THREADS / block_threads, by_shared});
    return SUCCESS;
}

DRIVER_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Handle function, int block_threads, size_t shared_bytes) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, block_threads, shared_bytes, 0);
}

DRIVER_API cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, Handle, int blocks, int) {
    BEGIN_CALL
    if (blocks <= 0 || blocks > MAX_BLOCKS) {
        return INVALID_VALUE;
    }
    *bytes = std::min(SHARED_BYTES / static_cast<size_t>(blocks) - SHARED_OVERHEAD, SHARED_BYTES - SHARED_OVERHEAD);
    return SUCCESS;
}
