// A stream: work in order, run when somebody waits for it and no earlier (or at once, where the settings say so).
//
// Running late is what shows a host that reads results, or changes pinned inputs, without having waited.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "abi.h"

using Work = std::function<Result()>;

// The work of a captured graph. Shared, as launches of it may be under way when it is destroyed.
using Graph = std::vector<Work>;

// What goes on while a stream is captured.
struct Capture {
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    int mode;
    std::thread::id thread = std::this_thread::get_id();
    bool invalidated = false;
};

struct Stream {
    explicit Stream(bool non_blocking) : non_blocking(non_blocking) {}

    // Whether work on the NULL stream waits for this one.
    const bool non_blocking;
    std::deque<Work> work;
    // How many pieces of work were ever enqueued, and how many have run.
    uint64_t enqueued = 0;
    uint64_t done = 0;
    std::unique_ptr<Capture> capture;

    void push(Work piece);
    // Runs work until `until` pieces have run since the beginning. The first failure ends it.
    Result run(uint64_t until);
    Result run_all() { return run(enqueued); }
};

// A place in a stream that an event marks.
struct Mark {
    std::weak_ptr<Stream> stream;
    uint64_t position = 0;
    bool reached = false;
    std::chrono::steady_clock::time_point time;

    // Runs the stream up to here.
    Result wait();
};

struct Event {
    bool timed;
    std::shared_ptr<Mark> mark;
    // Recorded while a stream was captured: it is no mark of real work.
    bool captured = false;
};
