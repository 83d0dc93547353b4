// Entry points that launch kernels. What a launch asks for is checked when it is made; what its arguments point at, when
// it runs, for that is when memory must be there: also at every replay of a graph.
#include <climits>
#include <cstdio>
#include <cstring>

#include "card.h"
#include "counts.h"

namespace {

// A launch's arguments, copied when it was made.
class Arguments {
  public:
    Arguments(const emu::Kernel& kernel, void** parameters) : kernel_(kernel) {
        for (unsigned at = 0; at < kernel.num_parameters; at++) {
            const size_t words = (kernel.parameter_sizes[at] + sizeof(Word) - 1) / sizeof(Word);
            values_.emplace_back(words);
            memcpy(values_.back().data(), parameters[at], kernel.parameter_sizes[at]);
        }
        for (std::vector<Word>& value : values_) {
            addresses_.push_back(value.data());
        }
    }

    void** addresses() { return addresses_.data(); }

    // The first argument that is a pointer to nothing the device has; the count of arguments where there is none.
    unsigned first_wild() const {
        for (unsigned at = 0; at < values_.size(); at++) {
            void* pointer = nullptr;
            if (!kernel_.parameter_is_pointer[at]) {
                continue;
            }
            memcpy(&pointer, values_[at].data(), sizeof pointer);
            if (pointer != nullptr && !card().memory.is_argument(pointer)) {
                return at;
            }
        }
        return static_cast<unsigned>(values_.size());
    }

  private:
    // As aligned as any parameter.
    struct alignas(16) Word {
        char bytes[16];
    };
    const emu::Kernel& kernel_;
    std::vector<std::vector<Word>> values_;
    std::vector<void*> addresses_;
};

// A failed kernel breaks the context: every later call says so.
Result break_context(Result code, const std::string& why) {
    card().broken = code;
    return card().complain(code, why);
}

Result run(const emu::Kernel& kernel, const emu::Launch& shape, Arguments& arguments) {
    Card& of = card();
    counts.launches++;
    const bool dead = ++of.num_launches_ever >= of.settings.deadly_launch.value_or(ULONG_MAX);
    if (++of.num_launches == of.settings.failing_launch || dead) {
        return break_context(LAUNCH_FAILED, std::string(kernel.name) + ": this launch was told to fail");
    }
    if (const unsigned wild = arguments.first_wild(); wild < kernel.num_parameters) {
        const std::string which = std::to_string(wild);
        return break_context(ILLEGAL_ADDRESS, std::string(kernel.name) + ": argument " + which + " (from 0) points at no device memory");
    }
    emu::Launch as_run = shape;
    if (of.settings.schedule.early) {
        as_run.former = of.former_kernels.before_kernel(of.memory, shape.overlaps);
    }
    const emu::Outcome outcome = emu::launch(kernel, as_run, arguments.addresses(), of.settings.schedule);
    if (outcome.failure == emu::Failure::none) {
        of.note_launched(kernel.name);
        return SUCCESS;
    }
    return break_context(static_cast<Result>(outcome.failure), outcome.message);
}

Result launch(Handle handle, emu::Launch shape, Handle stream, void** parameters, void** extra) {
    Card& of = card();
    if (of.functions.count(handle) == 0) {
        return of.complain(INVALID_HANDLE, "the launch of a function that does not exist");
    }
    const Function& function = *static_cast<Function*>(handle);
    const emu::Kernel& kernel = *function.kernel;
    if (extra != nullptr || (kernel.num_parameters > 0 && parameters == nullptr)) {
        return of.complain(INVALID_VALUE, std::string(kernel.name) + ": a launch without kernelParams");
    }
    for (unsigned at = 0; at < kernel.num_parameters; at++) {
        if (parameters[at] == nullptr) {
            return of.complain(INVALID_VALUE, std::string(kernel.name) + ": parameter " + std::to_string(at) + " is null");
        }
    }
    shape.reserved_shared = function.reserved_shared.value_or(0);
    shape.most_shared = function.reserved_shared ? of.settings.limits().shared_per_block() : Limits::SHARED_UNASKED;
    if (const size_t most = function.reserved_shared.value_or(Limits::SHARED_UNASKED); shape.dynamic_shared > most) {
        return of.complain(INVALID_VALUE, std::string(kernel.name) + ": " + std::to_string(shape.dynamic_shared) +
                                              " bytes of dynamic shared memory; the function's attribute allows " +
                                              std::to_string(most));
    }
    if (const emu::Outcome refused = emu::check(kernel, shape); refused.failure != emu::Failure::none) {
        return of.complain(static_cast<Result>(refused.failure), refused.message);
    }
    const auto arguments = std::make_shared<Arguments>(kernel, parameters);
    return of.enqueue_kernel(stream, [&kernel, shape, arguments] { return run(kernel, shape, *arguments); });
}

// Takes an attribute into `shape`; false for one that is unknown or asks for what is not emulated.
bool take(const LaunchAttribute& attribute, emu::Launch& shape) {
    enum : unsigned { IGNORE = 0, COOPERATIVE = 2, CLUSTER_DIMENSION = 4, PROGRAMMATIC_STREAM_SERIALIZATION = 6, PRIORITY = 8 };
    const unsigned* const cluster = attribute.value.size;
    switch (attribute.id) {
        case IGNORE:
        case PRIORITY:
            return true;
        case COOPERATIVE:
            return attribute.value.flag == 0;
        case CLUSTER_DIMENSION:
            return cluster[0] * cluster[1] * cluster[2] == 1;
        case PROGRAMMATIC_STREAM_SERIALIZATION:
            shape.overlaps = attribute.value.flag != 0;
            return true;
        default:
            return false;
    }
}

}  // namespace

DRIVER_API cuLaunchKernel(Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                          unsigned block_z, unsigned shared_bytes, Handle stream, void** parameters, void** extra) {
    BEGIN_CALL
    const emu::Launch shape{dim3(grid_x, grid_y, grid_z), dim3(block_x, block_y, block_z), shared_bytes};
    return launch(function, shape, stream, parameters, extra);
}

DRIVER_API cuLaunchKernelEx(const LaunchConfig* config, Handle function, void** parameters, void** extra) {
    BEGIN_CALL
    const unsigned* const grid = config->grid;
    const unsigned* const block = config->block;
    emu::Launch shape{dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), config->shared_bytes};
    for (unsigned at = 0; at < config->num_attributes; at++) {
        if (!take(config->attributes[at], shape)) {
            return card().complain(NOT_SUPPORTED, "launch attribute " + std::to_string(config->attributes[at].id) + " is not emulated");
        }
    }
    return launch(function, shape, config->stream, parameters, extra);
}
