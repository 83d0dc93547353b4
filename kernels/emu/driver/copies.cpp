// Entry points that copy and fill. Both ends on the device must lie inside of allocations, before and when the work runs.
//
// Pageable host memory is staged: it is read when the call is made, and a copy into it waits for the stream. Pinned memory
// is read and written when the work runs.
#include <cstring>

#include "card.h"
#include "counts.h"

namespace {

char* address_of(DevicePointer pointer) { return reinterpret_cast<char*>(pointer); }

Result check(DevicePointer pointer, size_t bytes, const char* what) {
    if (card().memory.is_device(address_of(pointer), bytes)) {
        return SUCCESS;
    }
    return card().complain(INVALID_VALUE, std::string(what) + " of " + std::to_string(bytes) + " bytes is not inside an allocation");
}

Result refuse_pageable(Handle stream) {
    const std::shared_ptr<Stream> of = card().streams.find(stream);
    if (of == nullptr || of->capture == nullptr) {
        return SUCCESS;
    }
    of->capture->invalidated = true;
    return card().complain(STREAM_CAPTURE_UNSUPPORTED, "a captured copy from or to pageable host memory");
}

Result synchronize(Handle stream) {
    const std::shared_ptr<Stream> of = card().streams.find(stream);
    return of == nullptr ? SUCCESS : of->run_all();
}

Result to_device(DevicePointer to, const void* from, size_t bytes, Handle stream) {
    if (const Result result = check(to, bytes, "the destination"); result != SUCCESS) {
        return result;
    }
    if (card().memory.is_pinned(from, bytes)) {
        return card().enqueue(stream, [=] {
            memcpy(address_of(to), from, bytes);
            return check(to, bytes, "the destination");
        });
    }
    if (const Result refused = refuse_pageable(stream); refused != SUCCESS) {
        return refused;
    }
    const char* const first = static_cast<const char*>(from);
    const auto staged = std::make_shared<std::vector<char>>(first, first + bytes);
    return card().enqueue(stream, [=] {
        const Result result = check(to, bytes, "the destination");
        if (result == SUCCESS) {
            memcpy(address_of(to), staged->data(), bytes);
        }
        return result;
    });
}

Result upload(DevicePointer to, const void* from, size_t bytes, Handle stream) {
    counts.uploads++;
    return to_device(to, from, bytes, stream);
}

// From the host to the device, from the corner of either: what is copied so.
Result upload_rows(const Copy2D& copy, Handle stream) {
    const bool from_corner = copy.from.x == 0 && copy.from.y == 0 && copy.to.x == 0 && copy.to.y == 0;
    if (copy.from.type != ON_HOST || copy.to.type != ON_DEVICE || !from_corner) {
        return card().complain(NOT_SUPPORTED, "a strided copy other than from the host to the device");
    }
    if (copy.width > copy.from.pitch || copy.width > copy.to.pitch) {
        return card().complain(INVALID_VALUE, "a strided copy's rows are wider than apart");
    }
    counts.uploads++;
    Result result = SUCCESS;
    for (size_t row = 0; result == SUCCESS && row < copy.height; row++) {
        const char* const from = static_cast<const char*>(copy.from.host) + row * copy.from.pitch;
        result = to_device(copy.to.device + row * copy.to.pitch, from, copy.width, stream);
    }
    return result;
}

Result to_host(void* to, DevicePointer from, size_t bytes, Handle stream) {
    if (const Result result = check(from, bytes, "the source"); result != SUCCESS) {
        return result;
    }
    counts.downloads++;
    const bool pinned = card().memory.is_pinned(to, bytes);
    const Result refused = pinned ? SUCCESS : refuse_pageable(stream);
    if (refused != SUCCESS) {
        return refused;
    }
    const Result enqueued = card().enqueue(stream, [=] {
        const Result result = check(from, bytes, "the source");
        if (result == SUCCESS) {
            memcpy(to, address_of(from), bytes);
        }
        return result;
    });
    return enqueued != SUCCESS || pinned ? enqueued : synchronize(stream);
}

Result on_device(DevicePointer to, DevicePointer from, size_t bytes, Handle stream) {
    const auto both_inside = [=] {
        const Result result = check(to, bytes, "the destination");
        return result != SUCCESS ? result : check(from, bytes, "the source");
    };
    if (const Result result = both_inside(); result != SUCCESS) {
        return result;
    }
    return card().enqueue(stream, [=] {
        const Result result = both_inside();
        if (result == SUCCESS) {
            memmove(address_of(to), address_of(from), bytes);
        }
        return result;
    });
}

template <class Element>
Result fill(DevicePointer to, Element value, size_t count, Handle stream) {
    const size_t bytes = count * sizeof(Element);
    if (const Result result = check(to, bytes, "what is filled"); result != SUCCESS) {
        return result;
    }
    if (to % sizeof(Element) != 0) {
        return card().complain(INVALID_VALUE, "what is filled is misaligned");
    }
    return card().enqueue(stream, [=] {
        const Result result = check(to, bytes, "what is filled");
        for (size_t at = 0; result == SUCCESS && at < count; at++) {
            reinterpret_cast<Element*>(to)[at] = value;
        }
        return result;
    });
}

// What does not say "async" synchronizes, which a capture forbids.
Result refuse_synchronous() { return card().refuse_in_capture(); }

}  // namespace

DRIVER_API cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, size_t bytes, Handle stream) {
    BEGIN_CALL
    return upload(to, from, bytes, stream);
}

DRIVER_API cuMemcpy2DAsync_v2(const Copy2D* copy, Handle stream) {
    BEGIN_CALL
    return upload_rows(*copy, stream);
}

DRIVER_API cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, size_t bytes, Handle stream) {
    BEGIN_CALL
    return to_host(to, from, bytes, stream);
}

DRIVER_API cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, Handle stream) {
    BEGIN_CALL
    return on_device(to, from, bytes, stream);
}

DRIVER_API cuMemcpyHtoD_v2(DevicePointer to, const void* from, size_t bytes) {
    BEGIN_CALL
    const Result refused = refuse_synchronous();
    return refused != SUCCESS ? refused : upload(to, from, bytes, nullptr);
}

DRIVER_API cuMemcpyDtoH_v2(void* to, DevicePointer from, size_t bytes) {
    BEGIN_CALL
    const Result refused = refuse_synchronous();
    return refused != SUCCESS ? refused : to_host(to, from, bytes, nullptr);
}

DRIVER_API cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t bytes) {
    BEGIN_CALL
    const Result refused = refuse_synchronous();
    return refused != SUCCESS ? refused : on_device(to, from, bytes, nullptr);
}

DRIVER_API cuMemsetD8Async(DevicePointer to, unsigned char value, size_t count, Handle stream) {
    BEGIN_CALL
    return fill(to, value, count, stream);
}

DRIVER_API cuMemsetD16Async(DevicePointer to, unsigned short value, size_t count, Handle stream) {
    BEGIN_CALL
    return fill(to, value, count, stream);
}

DRIVER_API cuMemsetD32Async(DevicePointer to, unsigned value, size_t count, Handle stream) {
    BEGIN_CALL
    return fill(to, value, count, stream);
}

DRIVER_API cuMemsetD8_v2(DevicePointer to, unsigned char value, size_t count) {
    BEGIN_CALL
    const Result refused = refuse_synchronous();
    return refused != SUCCESS ? refused : fill(to, value, count, nullptr);
}
