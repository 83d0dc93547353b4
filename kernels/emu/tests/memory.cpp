// Cases of memory: what is noticed, and by which build.
#include <cmath>
#include <cstdio>

#include "floats.h"
#include "harness.h"

using namespace harness;

namespace {

constexpr int COUNT = 128;

// Runs a copying kernel; returns how many results are NaN, and expects of the others what `expected` says.
int copied(const char* kernel, emu::Order order, float (*expected)(int)) {
    const Floats in(COUNT);
    const Floats out(COUNT);
    run(kernel, 1, 32, {order, 1, 1}, out.data(), static_cast<const float*>(in.data()));
    int poisoned = 0;
    for (int at = 0; at < COUNT; at++) {
        const float read = out.data()[at];
        poisoned += std::isnan(read);
        expect(std::isnan(read) || read == expected(at), "element %d is %g", at, read);
    }
    return poisoned;
}

float next_four(int at) { return static_cast<float>((at + 4) % COUNT); }

float zero(int) { return 0.0f; }

emu::Outcome launch_with_shared(const char* kernel, size_t bytes, unsigned threads) {
    const Floats out(COUNT);
    float* pointer = out.data();
    void* parameters[] = {&pointer};
    return emu::launch(*emu::find_kernel(kernel), {1, threads, bytes}, parameters, {});
}

}  // namespace

CASE(copies_arrive, passes()) {
    for (emu::Order order : ORDERS) {
        expect(copied("copy", order, next_four) == 0, "a copy is poisoned");
        expect(copied("copy_nothing", order, zero) == 0, "a copy of nothing is poisoned");
    }
}

CASE(copies_not_awaited_are_poison, passes()) {
    for (emu::Order order : ORDERS) {
        expect(copied("copy_too_early", order, next_four) == COUNT, "a copy arrived that nobody had waited for");
    }
}

CASE(copies_of_others_are_a_race, thread("WARNING: ThreadSanitizer: data race")) {
    copied("copy_without_barrier", emu::Order::forward, next_four);
}

CASE(copies_left_behind, everywhere("exits with cp.async copies that nobody waited for")) {
    const Floats in(COUNT);
    fail("copy_and_exit", 1, 32, static_cast<const float*>(in.data()));
}

CASE(copy_misaligned, everywhere("an address is not a multiple of 16")) {
    const Floats in(COUNT);
    fail("copy_misaligned", 1, 32, static_cast<const float*>(in.data()));
}

CASE(load_misaligned, address("which requires 16 byte alignment")) {
    const Floats in(COUNT);
    const Floats out(COUNT);
    run("load_misaligned", 1, 32, {}, out.data(), static_cast<const float*>(in.data()));
}

CASE(out_of_bounds, address("AddressSanitizer: heap-buffer-overflow")) {
    const Floats out(COUNT);
    run("write_beyond", 1, 1, {}, out.data(), COUNT);
}

CASE(out_of_dynamic_shared_memory, address("AddressSanitizer: heap-buffer-overflow")) {
    launch_with_shared("write_beyond_shared", 31 * sizeof(float), 32);
}

CASE(out_of_static_shared_memory, address("out of bounds for type")) {
    const Floats out(COUNT);
    run("index_beyond_array", 1, 1, {}, out.data(), 32);
}

CASE(too_much_static_shared_memory, everywhere("49156 bytes of static shared memory; a block has 49152")) {
    const Floats out(COUNT);
    fail("too_much_static_shared", 1, 32, out.data());
}

CASE(too_much_dynamic_shared_memory, everywhere("232449 bytes of shared memory; a block has 232448")) {
    expect(launch_with_shared("bounded", 232448, 1).failure == emu::Failure::none, "the most shared memory is refused");
    printf("%s\n", launch_with_shared("bounded", 232449, 1).message.c_str());
}

CASE(launch_bound, everywhere("has more threads than the launch bound, 64")) {
    expect(launch_with_shared("bounded", 0, 64).failure == emu::Failure::none, "the bound itself is refused");
    printf("%s\n", launch_with_shared("bounded", 0, 65).message.c_str());
}

CASE(launches_out_of_range, passes()) {
    const Floats out(COUNT);
    for (const dim3 grid : {dim3(0), dim3(1, 65536), dim3(1, 1, 65536)}) {
        expect(launch("bounded", grid, 1, {}, out.data()).failure == emu::Failure::invalid_value, "a grid is not refused");
    }
    for (const dim3 block : {dim3(0), dim3(1025), dim3(1, 1, 65)}) {
        expect(launch("bounded", 1, block, {}, out.data()).failure == emu::Failure::invalid_value, "a block is not refused");
    }
}

CASE(wild_pointer, (Expected{"emu: write_nowhere: block (0, 0, 0), thread (0, 0, 0) touches address 0x40", nullptr, nullptr})) {
    run("write_nowhere", 1, 32, {}, reinterpret_cast<int*>(0x40));
}

CASE(too_little_stack, (Expected{"emu: descend_far: block (0, 0, 0), thread (0, 0, 0) needs more stack than there is", nullptr, nullptr})) {
    int out = 0;
    run("descend_far", 1, 1, {}, &out, 10);
    run("descend_far", 1, 1, {}, &out, 10000);
}

CASE(race_in_a_block, thread("WARNING: ThreadSanitizer: data race")) {
    const Floats out(COUNT);
    run("race_in_a_block", 1, 32, {}, out.data());
}

CASE(race_between_blocks, thread("WARNING: ThreadSanitizer: data race")) {
    const Floats out(COUNT);
    run("race_between_blocks", 64, 1, {emu::Order::forward, 1, 2}, out.data());
}
