// Entry points for modules and their functions. An image is only looked at: the kernels are those compiled into this library.
#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>

#include "card.h"

namespace {

// Byte by byte, as nobody says how long the image is: no further than it agrees.
bool starts_with(const char* image, std::string_view beginning) {
    for (size_t at = 0; at < beginning.size(); at++) {
        if (image[at] != beginning[at]) {
            return false;
        }
    }
    return true;
}

bool is_image(const char* image) {
    for (const char* beginning : {"tokenmill-emu", "\x50\xed\x55\xba", "\x7f\x45\x4c\x46"}) {
        if (starts_with(image, beginning)) {
            return true;
        }
    }
    const bool text = image[0] == '/' || image[0] == '.';
    return text && strstr(image, ".version") != nullptr;
}

Function* find_function(Handle handle) {
    return card().functions.count(handle) > 0 ? static_cast<Function*>(handle) : nullptr;
}

Result unknown_function() { return card().complain(INVALID_HANDLE, "a function that does not exist"); }

enum FunctionAttribute {
    MAX_THREADS_PER_BLOCK = 0,
    NUM_REGISTERS = 4,
    PTX_VERSION = 5,
    BINARY_VERSION = 6,
    MAX_DYNAMIC_SHARED = 8,
};

}  // namespace

DRIVER_API cuModuleLoadData(Handle* module, const void* image) {
    BEGIN_CALL
    if (image == nullptr) {
        return INVALID_VALUE;
    }
    if (!is_image(static_cast<const char*>(image))) {
        return card().complain(INVALID_IMAGE, "a module's image that is no fatbin, no cubin, no PTX and not tokenmill-emu");
    }
    *module = card().modules.add(std::make_shared<Module>());
    return SUCCESS;
}

DRIVER_API cuModuleLoadDataEx(Handle* module, const void* image, unsigned, void*, void**) {
    return cuModuleLoadData(module, image);
}

DRIVER_API cuModuleLoad(Handle* module, const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        return FILE_NOT_FOUND;
    }
    const std::string image{std::istreambuf_iterator<char>(file), {}};
    return cuModuleLoadData(module, image.c_str());
}

DRIVER_API cuModuleUnload(Handle handle) {
    BEGIN_CALL
    const std::shared_ptr<Module> module = card().modules.find(handle);
    if (module == nullptr) {
        return card().complain(INVALID_HANDLE, "a module that does not exist");
    }
    if (const Result result = card().run_everything(); result != SUCCESS) {
        return result;
    }
    for (const auto& [name, function] : module->functions) {
        card().functions.erase(function.get());
    }
    card().modules.remove(handle);
    return SUCCESS;
}

DRIVER_API cuModuleGetFunction(Handle* function, Handle handle, const char* name) {
    BEGIN_CALL
    const std::shared_ptr<Module> module = card().modules.find(handle);
    if (module == nullptr) {
        return card().complain(INVALID_HANDLE, "a module that does not exist");
    }
    const emu::Kernel* const kernel = emu::find_kernel(name);
    if (kernel == nullptr) {
        return card().complain(NOT_FOUND, std::string("no kernel is called ") + name);
    }
    std::unique_ptr<Function>& known = module->functions[name];
    if (known == nullptr) {
        known.reset(new Function{kernel});
        card().functions.insert(known.get());
    }
    *function = known.get();
    return SUCCESS;
}

DRIVER_API cuModuleGetGlobal_v2(DevicePointer*, size_t*, Handle, const char* name) {
    BEGIN_CALL
    return card().complain(NOT_FOUND, std::string("global variables are not emulated: ") + name);
}

DRIVER_API cuFuncGetAttribute(int* value, int attribute, Handle handle) {
    BEGIN_CALL
    const Function* const function = find_function(handle);
    if (function == nullptr) {
        return unknown_function();
    }
    switch (attribute) {
        case MAX_THREADS_PER_BLOCK:
            *value = static_cast<int>(function->kernel->max_threads);
            break;
        case NUM_REGISTERS:
            *value = 32;
            break;
        case PTX_VERSION:
        case BINARY_VERSION:
            *value = 90;
            break;
        case MAX_DYNAMIC_SHARED:
            *value = static_cast<int>(function->reserved_shared.value_or(Limits::SHARED_UNASKED));
            break;
        default:
            *value = 0;
    }
    return SUCCESS;
}

DRIVER_API cuFuncSetAttribute(Handle handle, int attribute, int value) {
    BEGIN_CALL
    Function* const function = find_function(handle);
    if (function == nullptr) {
        return unknown_function();
    }
    if (attribute != MAX_DYNAMIC_SHARED) {
        return SUCCESS;
    }
    // Static arrays count too, but are met only when the kernel runs: that is when too many of them are refused.
    const size_t most = card().settings.limits().shared_per_block();
    if (value < 0 || static_cast<size_t>(value) > most) {
        const std::string has = "a block has " + std::to_string(most) + " bytes of shared memory";
        return card().complain(INVALID_VALUE, has + ", and not " + std::to_string(value));
    }
    function->reserved_shared = static_cast<size_t>(value);
    return SUCCESS;
}

DRIVER_API cuFuncSetCacheConfig(Handle handle, int) {
    BEGIN_CALL
    return find_function(handle) != nullptr ? SUCCESS : unknown_function();
}

DRIVER_API cuFuncGetName(const char** name, Handle handle) {
    BEGIN_CALL
    const Function* const function = find_function(handle);
    if (function == nullptr) {
        return unknown_function();
    }
    *name = function->kernel->name;
    return SUCCESS;
}
