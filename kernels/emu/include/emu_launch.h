// Kernels by name: how a compiled kernel file makes its kernels known, and how a host launches one.
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "emu_runtime.h"

namespace emu {

// What is known of a kernel. `parameters` pointers, as cuLaunchKernel takes them, go to `call`.
struct Kernel {
    const char* name;
    void (*call)(void** parameters);
    unsigned num_parameters;
    const size_t* parameter_sizes;
    // Which parameters are pointers, for a driver that checks them.
    const bool* parameter_is_pointer;
    // From __launch_bounds__; 1024 without.
    unsigned max_threads;
};

// The kernel of this name, or null.
const Kernel* find_kernel(const char* name);

struct Registration {
    explicit Registration(const Kernel& kernel);
};

// What kernels before have written. A block that finds it hidden runs as one whose threads come before those kernels, up to where all
// of them wait.
struct Former {
    virtual ~Former() = default;
    virtual void hide() = 0;
    // False where device memory was written meanwhile.
    virtual bool show() = 0;
};

// Shared memory of a block on a card of compute capability 9.0, static arrays and all.
constexpr size_t MAX_SHARED = 227 << 10;

struct Launch {
    dim3 grid;
    dim3 block;
    size_t dynamic_shared = 0;
    // Dynamic shared memory that its launches may ask for, which a block must have whether or not this one does.
    size_t reserved_shared = 0;
    // What a block has, static arrays and all.
    size_t most_shared = MAX_SHARED;
    // Started before the kernel before it has ended: its threads must wait for that themselves.
    bool overlaps = false;
    // Hidden from some of its blocks; null to hide nothing.
    Former* former = nullptr;
};

// How a launch ended; `message` is empty where `failure` is none.
struct Outcome {
    Failure failure = Failure::none;
    std::string message;
};

// The order in which the threads of a block run between two meetings, and blocks one after another. In reverse, one warp
// goes on for as long as it can; else all keep step, or nearly.
enum class Order { forward, reverse, random };

struct Schedule {
    Order order = Order::forward;
    unsigned seed = 1;
    // OS threads that take blocks.
    unsigned workers = 1;
    // Forward, and a kernel that overlaps the one before runs up to its wait as if none had run before.
    bool early = false;

    // TOKENMILL_EMU_ORDER: forward, reverse, random, random:SEED or early. TOKENMILL_EMU_WORKERS: a number, else one per core.
    static Schedule from_environment();
};

// Whether a card would take the launch at all.
Outcome check(const Kernel& kernel, const Launch& shape);

// Runs all blocks, unless `check` refuses, and returns when the last is done or one has failed.
Outcome launch(const Kernel& kernel, const Launch& shape, void** parameters, const Schedule& schedule);

// Unpacks parameters for the function `F`.
template <auto F>
struct Signature;

template <class... Parameters, void (*F)(Parameters...)>
struct Signature<F> {
    static constexpr unsigned count = sizeof...(Parameters);
    static constexpr size_t sizes[count + 1] = {sizeof(Parameters)..., 0};
    static constexpr bool pointers[count + 1] = {std::is_pointer_v<Parameters>..., false};

    static void call(void** parameters) { call_with(parameters, std::index_sequence_for<Parameters...>{}); }

  private:
    template <size_t... I>
    static void call_with([[maybe_unused]] void** parameters, std::index_sequence<I...>) {
        F(*static_cast<std::remove_cv_t<std::remove_reference_t<Parameters>>*>(parameters[I])...);
    }
};

}  // namespace emu

// Makes an extern "C" kernel known. The generated file that includes a kernel file has one of these per kernel.
#define EMU_KERNEL(kernel, max_threads)                                                                          \
    static const emu::Registration emu_registration_##kernel({#kernel, emu::Signature<(&kernel)>::call,          \
                                                              emu::Signature<(&kernel)>::count,                  \
                                                              emu::Signature<(&kernel)>::sizes,                  \
                                                              emu::Signature<(&kernel)>::pointers, max_threads});
