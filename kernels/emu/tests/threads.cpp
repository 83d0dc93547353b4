// Cases of threads that meet.
#include <cmath>
#include <cstdio>
#include <vector>

#include "floats.h"
#include "harness.h"

using namespace harness;

namespace {

constexpr unsigned THREADS = 128;

std::vector<float> handed_on(const char* kernel, emu::Schedule schedule) {
    std::vector<float> out(3 * THREADS, -1.0f);
    run(kernel, 3, THREADS, schedule, out.data());
    return out;
}

}  // namespace

CASE(barrier_orders_threads, passes()) {
    for (emu::Order order : ORDERS) {
        const std::vector<float> out = handed_on("hand_on_at_barrier", {order, 1, 2});
        for (unsigned at = 0; at < out.size(); at++) {
            const float expected = (at % THREADS + 1) % THREADS;
            expect(out[at] == expected, "thread %u read %g", at, out[at]);
        }
    }
}

CASE(missing_barrier_reads_poison, (Expected{PASSED, PASSED, nullptr})) {
    for (emu::Order order : ORDERS) {
        int poisoned = 0;
        for (float read : handed_on("hand_on_without_barrier", {order, 1, 1})) {
            poisoned += std::isnan(read);
        }
        expect(poisoned > 0, "nothing was poisoned in order %d", static_cast<int>(order));
    }
}

CASE(missing_barrier_is_a_race, thread("WARNING: ThreadSanitizer: data race")) {
    handed_on("hand_on_without_barrier", {emu::Order::forward, 1, 1});
}

// What the threads summed up in rounds of filling and reading one buffer.
static std::vector<float> filled_and_read(const char* kernel, emu::Order order) {
    constexpr int ROUNDS = 3;
    const Floats in(ROUNDS * 64 * 4);
    const Floats out(64);
    run(kernel, 1, 64, {order, 1, 1}, out.data(), static_cast<const float*>(in.data()), ROUNDS);
    return {out.data(), out.data() + 64};
}

CASE(missing_second_barrier_overwrites, (Expected{PASSED, PASSED, nullptr})) {
    const std::vector<float> sums = filled_and_read("fill_and_read_in_turn", emu::Order::forward);
    for (emu::Order order : ORDERS) {
        expect(filled_and_read("fill_and_read_in_turn", order) == sums, "the sums depend on the order");
    }
    expect(filled_and_read("fill_while_others_read", emu::Order::reverse) != sums, "nothing was overwritten");
}

CASE(missing_second_barrier_is_a_race, thread("WARNING: ThreadSanitizer: data race")) {
    filled_and_read("fill_while_others_read", emu::Order::forward);
}

CASE(blocks_see_no_leftovers, passes()) {
    std::vector<float> out(5 * 32, 0.0f);
    run("read_shared", 5, 32, {emu::Order::forward, 1, 1}, out.data());
    for (float read : out) {
        expect(std::isnan(read), "a block read %g", read);
    }
}

CASE(barrier_counts_predicates, passes()) {
    for (emu::Order order : ORDERS) {
        std::vector<int> out(THREADS);
        run("barrier_counts", 1, THREADS, {order, 3, 1}, out.data());
        for (int read : out) {
            expect(read == THREADS / 2 * 4 + 2, "a thread got %d", read);
        }
    }
}

CASE(exited_threads_are_not_waited_for, passes()) {
    for (emu::Order order : ORDERS) {
        for (int live : {1, 31, 32, 33, 64}) {
            std::vector<int> out(64, -1);
            run("meet_after_exits", 1, 64, {order, 5, 1}, out.data(), live);
            for (int at = 0; at < live; at++) {
                const int in_warp = live - at / 32 * 32 < 32 ? live - at / 32 * 32 : 32;
                expect(out[at] == in_warp, "of %d, thread %d saw %d lanes", live, at, out[at]);
            }
        }
    }
}

CASE(barrier_in_a_branch, everywhere("divergent barrier: other threads of the warp wait at")) {
    std::vector<int> out(64);
    fail("barrier_in_a_branch", 1, 64, out.data());
}

CASE(shuffle_in_a_branch, everywhere("divergent warp collective: other lanes of the mask ffffffff are at")) {
    std::vector<int> out(32);
    fail("shuffle_in_a_branch", 1, 32, out.data());
}

CASE(deadlock, everywhere("deadlock: 16 threads wait in __shfl_sync at")) {
    std::vector<int> out(32);
    fail("barrier_against_shuffle", 1, 32, out.data());
}

CASE(shuffle_from_nowhere, everywhere("reads lane 20, which takes no part")) {
    std::vector<int> out(32);
    fail("shuffle_from_nowhere", 1, 32, out.data());
}

CASE(mask_without_self, everywhere("a mask of 00000001, in which it is not")) {
    std::vector<int> out(32);
    fail("mask_without_self", 1, 32, out.data());
}

CASE(multiply_in_half_a_warp, everywhere("needs all 32 lanes of the warp")) {
    std::vector<float> out(32);
    fail("multiply_in_half_a_warp", 1, 32, out.data());
}

CASE(lanes_exchange, passes()) {
    for (emu::Order order : ORDERS) {
        std::vector<int> out(32 * 8);
        run("exchange", 1, 32, {order, 7, 1}, out.data());
        for (int lane = 0; lane < 32; lane++) {
            const int expected[8] = {
                lane / 8 * 8 + 5,
                lane ^ 3,
                lane % 16 + 3 < 16 ? lane + 3 : lane,
                lane % 16 >= 3 ? lane - 3 : lane,
                0x49249249,
                31 * 16,
                31,
                2,
            };
            for (int at = 0; at < 8; at++) {
                expect(out[lane * 8 + at] == expected[at], "lane %d got %d of exchange %d", lane, out[lane * 8 + at], at);
            }
        }
    }
}

CASE(last_block_adds, passes()) {
    for (emu::Order order : ORDERS) {
        for (unsigned workers : {1u, 2u, 7u}) {
            constexpr unsigned BLOCKS = 20;
            std::vector<unsigned> sums(BLOCKS);
            unsigned arrived = 0;
            unsigned total = 0;
            run("last_block_adds", BLOCKS, 96, {order, 1, workers}, sums.data(), &arrived, &total);
            expect(total == 96 * BLOCKS * (BLOCKS + 1) / 2, "the total is %u", total);
            expect(arrived == 0, "the counter is left at %u", arrived);
        }
    }
}
