// Entry points that ask what there is: the driver, its one device, and what that can do.
#include <cstdio>
#include <cstring>
#include <map>

#include "card.h"

namespace {

// By the numbers of CUdevice_attribute: a card like an H100, but with 4 multiprocessors. What differs by capability is in `Limits`.
const std::map<int, int>& attributes() {
    static const std::map<int, int> values = {
        {1, 1024},         // threads per block
        {2, 1024},         // block x
        {3, 1024},         // block y
        {4, 64},           // block z
        {5, 2147483647},   // grid x
        {6, 65535},        // grid y
        {7, 65535},        // grid z
        {8, 48 << 10},     // shared memory per block
        {9, 64 << 10},     // constant memory
        {10, 32},          // warp size
        {11, 2147483647},  // pitch
        {12, 65536},       // registers per block
        {13, 1980000},     // clock, kHz
        {16, 4},           // multiprocessors
        {19, 1},           // maps host memory
        {31, 1},           // concurrent kernels
        {36, 3201000},     // memory clock, kHz
        {37, 6144},        // bits of the memory bus
        {38, 60 << 20},    // level 2 cache
        {40, 3},           // copy engines
        {41, 1},           // unified addresses
        {78, 1},           // stream priorities
        {79, 1},           // caches global memory in level 1
        {82, 65536},       // registers per multiprocessor
        {111, Limits::SHARED_OVERHEAD},
        {115, 1},          // memory pools
    };
    return values;
}

constexpr int NUM_ATTRIBUTES = 160;

enum DeviceAttribute {
    THREADS_PER_MULTIPROCESSOR = 39,
    CAPABILITY_MAJOR = 75,
    CAPABILITY_MINOR = 76,
    SHARED_PER_MULTIPROCESSOR = 81,
    SHARED_PER_BLOCK_ASKED_FOR = 97,
    BLOCKS_PER_MULTIPROCESSOR = 106,
};

int attribute_value(int attribute) {
    const Settings& settings = card().settings;
    switch (attribute) {
        case THREADS_PER_MULTIPROCESSOR: return settings.limits().threads;
        case CAPABILITY_MAJOR: return settings.capability_major;
        case CAPABILITY_MINOR: return settings.capability_minor;
        case SHARED_PER_MULTIPROCESSOR: return static_cast<int>(settings.limits().shared);
        case SHARED_PER_BLOCK_ASKED_FOR: return static_cast<int>(settings.limits().shared_per_block());
        case BLOCKS_PER_MULTIPROCESSOR: return settings.limits().blocks;
    }
    const auto found = attributes().find(attribute);
    return found == attributes().end() ? 0 : found->second;
}

Result check_device(int device) {
    const std::lock_guard<std::recursive_mutex> lock(card().mutex);
    if (!card().initialized) {
        return NOT_INITIALIZED;
    }
    return device == 0 ? SUCCESS : INVALID_DEVICE;
}

}  // namespace

DRIVER_API cuInit(unsigned flags) {
    const std::lock_guard<std::recursive_mutex> lock(card().mutex);
    if (card().num_contexts == 0) {
        card().settings = Settings::from_environment();
    }
    if (card().settings.no_device) {
        return NO_DEVICE;
    }
    card().initialized = true;
    return flags == 0 ? SUCCESS : INVALID_VALUE;
}

DRIVER_API cuDriverGetVersion(int* version) {
    *version = Settings::from_environment().driver_version;
    return SUCCESS;
}

DRIVER_API cuDeviceGetCount(int* count) {
    *count = 1;
    return check_device(0);
}

DRIVER_API cuDeviceGet(int* device, int ordinal) {
    *device = 0;
    return check_device(ordinal);
}

DRIVER_API cuDeviceGetName(char* name, int length, int device) {
    snprintf(name, static_cast<size_t>(length), "Emulated GPU");
    return check_device(device);
}

DRIVER_API cuDeviceGetUuid_v2(void* uuid, int device) {
    memset(uuid, 0xE5, 16);
    return check_device(device);
}

DRIVER_API cuDeviceGetUuid(void* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

DRIVER_API cuDeviceGetPCIBusId(char* id, int length, int device) {
    snprintf(id, static_cast<size_t>(length), "0000:00:00.0");
    return check_device(device);
}

DRIVER_API cuDeviceTotalMem_v2(size_t* bytes, int device) {
    *bytes = card().settings.memory_bytes;
    return check_device(device);
}

DRIVER_API cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (attribute <= 0 || attribute >= NUM_ATTRIBUTES) {
        return INVALID_VALUE;
    }
    *value = attribute_value(attribute);
    return check_device(device);
}

DRIVER_API cuDeviceCanAccessPeer(int* can, int, int) {
    *can = 0;
    return check_device(0);
}
