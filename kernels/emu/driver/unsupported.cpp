// Entry points that a host may find but not use: what they do is not emulated, and a result says so. Without them a host that
// looks them up would not get as far as the result.
#include "card.h"

#define UNSUPPORTED(name)                                                       \
    DRIVER_API name(...) {                                                      \
        BEGIN_CALL                                                              \
        return card().complain(NOT_SUPPORTED, #name " is not emulated");        \
    }

UNSUPPORTED(cuCtxCreate_v4)
UNSUPPORTED(cuCtxDestroy_v2)
UNSUPPORTED(cuDestroyExternalMemory)
UNSUPPORTED(cuExternalMemoryGetMappedBuffer)
UNSUPPORTED(cuImportExternalMemory)
UNSUPPORTED(cuLaunchCooperativeKernel)
UNSUPPORTED(cuMemAdvise_v2)
UNSUPPORTED(cuMemAllocManaged)
UNSUPPORTED(cuMemcpyPeerAsync)
UNSUPPORTED(cuMemPoolCreate)
UNSUPPORTED(cuMemPoolDestroy)
UNSUPPORTED(cuMemPrefetchAsync_v2)
UNSUPPORTED(cuOccupancyMaxActiveClusters)
UNSUPPORTED(cuOccupancyMaxPotentialBlockSize)
UNSUPPORTED(cuOccupancyMaxPotentialBlockSizeWithFlags)
UNSUPPORTED(cuOccupancyMaxPotentialClusterSize)
UNSUPPORTED(cuProfilerStart)
UNSUPPORTED(cuProfilerStop)
UNSUPPORTED(cuStreamAttachMemAsync)
