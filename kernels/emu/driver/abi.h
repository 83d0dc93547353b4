// The driver API's own types, as far as this library speaks it: handles are addresses, results are numbers.
#pragma once

#include <cstddef>
#include <cstdint>

enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    FILE_NOT_FOUND = 301,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    HOST_MEMORY_ALREADY_REGISTERED = 712,
    HOST_MEMORY_NOT_REGISTERED = 713,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    STREAM_CAPTURE_UNMATCHED = 903,
    STREAM_CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    STREAM_CAPTURE_WRONG_THREAD = 908,
};

using Handle = void*;
using DevicePointer = unsigned long long;
using HostFunction = void (*)(void*);

struct LaunchAttribute {
    unsigned id;
    char padding[4];
    union {
        char bytes[64];
        unsigned size[3];
        int flag;
    } value;
};

struct LaunchConfig {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    Handle stream;
    LaunchAttribute* attributes;
    unsigned num_attributes;
};

// Of CUmemorytype.
enum MemoryType : int { ON_HOST = 1, ON_DEVICE = 2 };

struct Copy2D {
    struct End {
        size_t x, y;
        MemoryType type;
        void* host;
        DevicePointer device;
        Handle array;
        size_t pitch;
    } from, to;
    size_t width, height;
};

// An entry point: found by its name, so it keeps the name that the driver gives it.
#define DRIVER_API extern "C" __attribute__((visibility("default"))) Result
