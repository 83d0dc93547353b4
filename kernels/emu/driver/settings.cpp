// Environment variables. One that makes no sense ends the process: a test would otherwise pass for the wrong reason.
#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

[[noreturn]] void refuse(const char* name, const char* value, const char* expected) {
    fprintf(stderr, "emu: %s=%s; expected %s\n", name, value, expected);
    exit(2);
}

unsigned long number(const char* name, const char* value, const char* digits) {
    char* end = nullptr;
    const unsigned long parsed = strtoul(digits, &end, 10);
    if (end == digits || *end != '\0') {
        refuse(name, value, "a whole number");
    }
    return parsed;
}

// Reads MAJOR.MINOR.
void read_version(const char* name, int& major, int& minor) {
    if (const char* const value = getenv(name)) {
        char rest = '\0';
        if (sscanf(value, "%d.%d%c", &major, &minor, &rest) != 2 || major < 0 || minor < 0) {
            refuse(name, value, "MAJOR.MINOR");
        }
    }
}

void read_failure(Settings& settings, const char* name, const char* value) {
    if (strncmp(value, "launch:", 7) == 0) {
        settings.failing_launch = number(name, value, value + 7);
    } else if (strncmp(value, "alloc:", 6) == 0) {
        settings.failing_allocation = number(name, value, value + 6);
    } else if (strncmp(value, "dies:", 5) == 0) {
        settings.deadly_launch = number(name, value, value + 5);
    } else {
        refuse(name, value, "launch:N, alloc:N or dies:N");
    }
}

}  // namespace

Settings Settings::from_environment() {
    Settings settings;
    const char* const no_device = getenv("TOKENMILL_EMU_NO_DEVICE");
    settings.no_device = no_device != nullptr && strcmp(no_device, "0") != 0;
    read_version("TOKENMILL_EMU_CAPABILITY", settings.capability_major, settings.capability_minor);
    int cuda_major = settings.driver_version / 1000;
    int cuda_minor = settings.driver_version % 1000 / 10;
    read_version("TOKENMILL_EMU_DRIVER", cuda_major, cuda_minor);
    settings.driver_version = cuda_major * 1000 + cuda_minor * 10;
    if (const char* const memory = getenv("TOKENMILL_EMU_MEMORY")) {
        settings.memory_bytes = number("TOKENMILL_EMU_MEMORY", memory, memory);
    }
    if (const char* const failure = getenv("TOKENMILL_EMU_FAIL")) {
        read_failure(settings, "TOKENMILL_EMU_FAIL", failure);
    }
    if (const char* const streams = getenv("TOKENMILL_EMU_STREAMS")) {
        settings.eager = strcmp(streams, "eager") == 0;
        if (!settings.eager && strcmp(streams, "lazy") != 0) {
            refuse("TOKENMILL_EMU_STREAMS", streams, "lazy or eager");
        }
    }
    if (const char* const launched = getenv("TOKENMILL_EMU_LAUNCHED")) {
        settings.launched = launched;
    }
    settings.schedule = emu::Schedule::from_environment();
    return settings;
}

Limits Settings::limits() const {
    switch (capability_major * 10 + capability_minor) {
        case 80: return {164 << 10, 2048, 32};
        case 86: return {100 << 10, 1536, 16};
        case 89:
        case 120: return {100 << 10, 1536, 24};
        default: return {228 << 10, 2048, 32};
    }
}
