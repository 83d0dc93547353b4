// The one card.
#include "card.h"

#include <cstdio>
#include <fstream>

Card& card() {
    // Never destroyed: programs call the driver while they end.
    static Card* const only = new Card;
    return *only;
}

Call::Call() : lock(card().mutex) {
    const Card& of = card();
    result = !of.initialized ? NOT_INITIALIZED : of.broken;
}

// CU_STREAM_LEGACY is 1; CU_STREAM_PER_THREAD, 2, is treated alike.
bool Card::is_null_stream(Handle handle) { return reinterpret_cast<uintptr_t>(handle) <= 2; }

Result Card::run_everything() {
    for (const auto& [handle, stream] : streams.all()) {
        if (stream->capture == nullptr) {
            if (const Result result = stream->run_all(); result != SUCCESS) {
                return result;
            }
        }
    }
    return SUCCESS;
}

Result Card::enqueue(Handle handle, Work work) {
    return enqueue_kernel(handle, [this, work = std::move(work)] {
        former_kernels.end_row();
        return work();
    });
}

Result Card::enqueue_kernel(Handle handle, Work work) {
    if (is_null_stream(handle)) {
        for (const auto& [other, stream] : streams.all()) {
            if (stream->capture != nullptr && !stream->non_blocking) {
                return refuse_in_capture();
            }
            const Result result = stream->non_blocking ? SUCCESS : stream->run_all();
            if (result != SUCCESS) {
                return result;
            }
        }
        return work();
    }
    const std::shared_ptr<Stream> stream = streams.find(handle);
    if (stream == nullptr) {
        return complain(INVALID_HANDLE, "work for a stream that does not exist");
    }
    if (stream->capture == nullptr) {
        stream->push(std::move(work));
        return settings.eager ? stream->run_all() : SUCCESS;
    }
    if (stream->capture->invalidated) {
        return STREAM_CAPTURE_INVALIDATED;
    }
    stream->capture->graph->push_back(std::move(work));
    return SUCCESS;
}

void Card::note_launched(const char* name) {
    if (launched.insert(name).second && !settings.launched.empty()) {
        std::ofstream(settings.launched, std::ios::app) << name << '\n';
    }
}

Result Card::refuse_in_capture() {
    constexpr int GLOBAL = 0;
    constexpr int RELAXED = 2;
    for (const auto& [handle, stream] : streams.all()) {
        Capture* const capture = stream->capture.get();
        if (capture == nullptr || capture->mode == RELAXED) {
            continue;
        }
        if (capture->mode == GLOBAL || capture->thread == std::this_thread::get_id()) {
            capture->invalidated = true;
            return complain(STREAM_CAPTURE_UNSUPPORTED, "allocation or synchronization while a stream is captured");
        }
    }
    return SUCCESS;
}

Result Card::complain(Result code, const std::string& why) {
    fprintf(stderr, "emu: CUDA error %d: %s\n", code, why.c_str());
    return code;
}

void Card::reset() {
    settings = Settings::from_environment();
    broken = SUCCESS;
    num_launches = 0;
    num_allocations = 0;
    streams.clear();
    events.clear();
    executable_graphs.clear();
    graphs.clear();
    modules.clear();
    functions.clear();
    former_kernels.end_row();
    memory.release_all();
}
