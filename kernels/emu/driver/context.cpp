// The primary context: who has it, who made it current, and what is left when the last one lets go.
#include "card.h"

namespace {

// Its address is the context's handle.
char primary;
thread_local Handle current_context = nullptr;

}  // namespace

DRIVER_API cuDevicePrimaryCtxRetain(Handle* context, int device) {
    const std::lock_guard<std::recursive_mutex> lock(card().mutex);
    if (!card().initialized) {
        return NOT_INITIALIZED;
    }
    if (device != 0) {
        return INVALID_DEVICE;
    }
    if (card().num_contexts++ == 0) {
        card().reset();
    }
    *context = &primary;
    return SUCCESS;
}

// With the last one go all objects, all memory, and what had broken the context.
DRIVER_API cuDevicePrimaryCtxRelease_v2(int device) {
    const std::lock_guard<std::recursive_mutex> lock(card().mutex);
    if (device != 0) {
        return INVALID_DEVICE;
    }
    if (card().num_contexts == 0) {
        return INVALID_CONTEXT;
    }
    if (--card().num_contexts == 0) {
        card().reset();
    }
    return SUCCESS;
}

DRIVER_API cuCtxSetCurrent(Handle context) {
    if (context != nullptr && context != &primary) {
        return INVALID_CONTEXT;
    }
    current_context = context;
    return SUCCESS;
}

DRIVER_API cuCtxGetCurrent(Handle* context) {
    *context = current_context;
    return SUCCESS;
}

DRIVER_API cuCtxGetDevice(int* device) {
    *device = 0;
    return current_context == nullptr ? INVALID_CONTEXT : SUCCESS;
}

DRIVER_API cuCtxSynchronize() {
    BEGIN_CALL
    if (const Result refused = card().refuse_in_capture(); refused != SUCCESS) {
        return refused;
    }
    return card().run_everything();
}

DRIVER_API cuCtxSetFlags(unsigned) {
    BEGIN_CALL
    return SUCCESS;
}

DRIVER_API cuCtxSetLimit(int, size_t) {
    BEGIN_CALL
    return SUCCESS;
}

DRIVER_API cuCtxGetLimit(size_t* value, int) {
    BEGIN_CALL
    *value = 0;
    return SUCCESS;
}

DRIVER_API cuCtxSetCacheConfig(int) {
    BEGIN_CALL
    return SUCCESS;
}

DRIVER_API cuCtxGetCacheConfig(int* config) {
    BEGIN_CALL
    *config = 0;
    return SUCCESS;
}

DRIVER_API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    BEGIN_CALL
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}
