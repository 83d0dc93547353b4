// Cases of the emulator's own tests. Each runs in a process of its own, as many end theirs: a case passes when its output
// contains what its build is expected to say.
#pragma once

#include <cstdarg>
#include <string>

#include "emu_launch.h"

namespace harness {

// What a case says in the plain build, under the address and under the thread sanitizer. Null where it makes no sense.
struct Expected {
    const char* plain;
    const char* address;
    const char* thread;
};

struct Case {
    const char* name;
    void (*run)();
    Expected expected;
};

struct Registered {
    explicit Registered(const Case& known);
};

// What a case says that came to its end without objection.
constexpr const char* PASSED = "passed";

constexpr Expected everywhere(const char* text) { return {text, text, text}; }
constexpr Expected passes() { return everywhere(PASSED); }
constexpr Expected address(const char* text) { return {nullptr, text, nullptr}; }
constexpr Expected thread(const char* text) { return {nullptr, nullptr, text}; }

// Ends the case with this sentence where the condition does not hold.
void expect(bool condition, const char* format, ...) __attribute__((format(printf, 2, 3)));

constexpr emu::Order ORDERS[] = {emu::Order::forward, emu::Order::reverse, emu::Order::random};

// Launches a kernel of the tests by its name.
template <class... Parameters>
emu::Outcome launch(const char* name, dim3 grid, dim3 block, emu::Schedule schedule, Parameters... values) {
    const emu::Kernel* const kernel = emu::find_kernel(name);
    expect(kernel != nullptr, "there is no kernel %s", name);
    expect(kernel->num_parameters == sizeof...(values), "%s has %u parameters", name, kernel->num_parameters);
    void* parameters[] = {static_cast<void*>(&values)..., nullptr};
    return emu::launch(*kernel, {grid, block, 0}, parameters, schedule);
}

// Launches where the kernel must succeed, and where it must fail: then the message is printed, for the case to be judged by.
template <class... Parameters>
void run(const char* name, dim3 grid, dim3 block, emu::Schedule schedule, Parameters... values) {
    const emu::Outcome outcome = launch(name, grid, block, schedule, values...);
    expect(outcome.failure == emu::Failure::none, "%s", outcome.message.c_str());
}

template <class... Parameters>
void fail(const char* name, dim3 grid, dim3 block, Parameters... values) {
    for (emu::Order order : ORDERS) {
        const emu::Outcome outcome = launch(name, grid, block, {order, 1, 1}, values...);
        expect(outcome.failure != emu::Failure::none, "%s was not noticed", name);
        printf("%s\n", outcome.message.c_str());
    }
}

}  // namespace harness

// A case by name: CASE(missing_barrier, passes()) { ... }
#define CASE(name, expected)                                            \
    static void name();                                                 \
    static const harness::Registered name##_case({#name, name, expected}); \
    static void name()
