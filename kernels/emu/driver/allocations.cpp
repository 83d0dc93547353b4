// Entry points for device memory, pinned host memory and memory pools.
#include <cstring>

#include "card.h"
#include "counts.h"

namespace {

void* address_of(DevicePointer pointer) { return reinterpret_cast<void*>(pointer); }

Result allocate(DevicePointer* pointer, size_t bytes) {
    Card& of = card();
    counts.allocations++;
    if (bytes == 0) {
        return of.complain(INVALID_VALUE, "an allocation of 0 bytes");
    }
    if (++of.num_allocations == of.settings.failing_allocation) {
        return of.complain(OUT_OF_MEMORY, "this allocation was told to fail");
    }
    void* address = of.memory.allocate(bytes, of.settings.memory_bytes);
    if (address == nullptr) {
        // Frees may wait their turn in a stream.
        if (const Result result = of.run_everything(); result != SUCCESS) {
            return result;
        }
        address = of.memory.allocate(bytes, of.settings.memory_bytes);
    }
    *pointer = reinterpret_cast<DevicePointer>(address);
    return address != nullptr ? SUCCESS : OUT_OF_MEMORY;
}

Result release(DevicePointer pointer) {
    if (!card().memory.release(address_of(pointer))) {
        return card().complain(INVALID_VALUE, "memory is freed that is not allocated");
    }
    return SUCCESS;
}

// Allocation and freeing become nodes of a graph on the hardware; here nobody needs them to.
Result refuse_if_captured(Handle stream) {
    const std::shared_ptr<Stream> of = card().streams.find(stream);
    if (of == nullptr || of->capture == nullptr) {
        return SUCCESS;
    }
    of->capture->invalidated = true;
    return card().complain(STREAM_CAPTURE_UNSUPPORTED, "allocation or freeing on a stream that is captured");
}

}  // namespace

DRIVER_API cuMemAlloc_v2(DevicePointer* pointer, size_t bytes) {
    BEGIN_CALL
    const Result refused = card().refuse_in_capture();
    return refused != SUCCESS ? refused : allocate(pointer, bytes);
}

DRIVER_API cuMemAllocAsync(DevicePointer* pointer, size_t bytes, Handle stream) {
    BEGIN_CALL
    const Result refused = refuse_if_captured(stream);
    return refused != SUCCESS ? refused : allocate(pointer, bytes);
}

DRIVER_API cuMemAllocFromPoolAsync(DevicePointer* pointer, size_t bytes, Handle, Handle stream) {
    return cuMemAllocAsync(pointer, bytes, stream);
}

DRIVER_API cuMemFree_v2(DevicePointer pointer) {
    BEGIN_CALL
    if (pointer == 0) {
        return SUCCESS;
    }
    if (const Result refused = card().refuse_in_capture(); refused != SUCCESS) {
        return refused;
    }
    const Result result = card().run_everything();
    return result != SUCCESS ? result : release(pointer);
}

DRIVER_API cuMemFreeAsync(DevicePointer pointer, Handle stream) {
    BEGIN_CALL
    if (const Result refused = refuse_if_captured(stream); refused != SUCCESS) {
        return refused;
    }
    if (!card().memory.is_device(address_of(pointer), 1)) {
        return card().complain(INVALID_VALUE, "memory is freed that is not allocated");
    }
    return card().enqueue(stream, [pointer] { return release(pointer); });
}

DRIVER_API cuMemGetInfo_v2(size_t* free, size_t* total) {
    BEGIN_CALL
    *total = card().settings.memory_bytes;
    *free = *total - card().memory.used();
    return SUCCESS;
}

DRIVER_API cuMemGetAddressRange_v2(DevicePointer* start, size_t* bytes, DevicePointer pointer) {
    BEGIN_CALL
    const void* first = nullptr;
    if (!card().memory.find(address_of(pointer), first, *bytes)) {
        return card().complain(NOT_FOUND, "the range of an address that is in no allocation");
    }
    *start = reinterpret_cast<DevicePointer>(first);
    return SUCCESS;
}

DRIVER_API cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    BEGIN_CALL
    if (const Result refused = card().refuse_in_capture(); refused != SUCCESS) {
        return refused;
    }
    counts.allocations++;
    *pointer = bytes == 0 ? nullptr : card().memory.allocate_host(bytes);
    return *pointer != nullptr ? SUCCESS : (bytes == 0 ? INVALID_VALUE : OUT_OF_MEMORY);
}

DRIVER_API cuMemAllocHost_v2(void** pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

DRIVER_API cuMemFreeHost(void* pointer) {
    BEGIN_CALL
    if (const Result result = card().run_everything(); result != SUCCESS) {
        return result;
    }
    if (!card().memory.release_host(pointer)) {
        return card().complain(INVALID_VALUE, "host memory is freed that is not allocated");
    }
    return SUCCESS;
}

DRIVER_API cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned) {
    BEGIN_CALL
    if (card().memory.is_pinned(pointer, 1)) {
        return HOST_MEMORY_ALREADY_REGISTERED;
    }
    card().memory.pin(pointer, bytes);
    return SUCCESS;
}

DRIVER_API cuMemHostUnregister(void* pointer) {
    BEGIN_CALL
    return card().memory.unpin(pointer) ? SUCCESS : HOST_MEMORY_NOT_REGISTERED;
}

DRIVER_API cuMemHostGetDevicePointer_v2(DevicePointer* device, void* pointer, unsigned) {
    BEGIN_CALL
    *device = reinterpret_cast<DevicePointer>(pointer);
    return card().memory.is_pinned(pointer, 1) ? SUCCESS : INVALID_VALUE;
}

// There is one pool, with nothing to set: freed memory goes back at once.
DRIVER_API cuDeviceGetDefaultMemPool(Handle* pool, int) {
    BEGIN_CALL
    *pool = &card().memory;
    return SUCCESS;
}

DRIVER_API cuDeviceGetMemPool(Handle* pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }

DRIVER_API cuDeviceSetMemPool(int, Handle) {
    BEGIN_CALL
    return SUCCESS;
}

DRIVER_API cuMemPoolSetAttribute(Handle, int, void*) {
    BEGIN_CALL
    return SUCCESS;
}

DRIVER_API cuMemPoolGetAttribute(Handle, int, void* value) {
    BEGIN_CALL
    memset(value, 0, sizeof(uint64_t));
    return SUCCESS;
}

DRIVER_API cuMemPoolTrimTo(Handle, size_t) {
    BEGIN_CALL
    return SUCCESS;
}
