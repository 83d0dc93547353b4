// Entry points for streams and for capturing them.
#include "card.h"

namespace {

enum CaptureStatus { NONE = 0, ACTIVE = 1, INVALIDATED = 2 };

constexpr int MODE_THREAD_LOCAL = 1;

Result unknown_stream() { return card().complain(INVALID_HANDLE, "a stream that does not exist"); }

}  // namespace

DRIVER_API cuStreamCreate(Handle* stream, unsigned flags) {
    BEGIN_CALL
    constexpr unsigned NON_BLOCKING = 1;
    *stream = card().streams.add(std::make_shared<Stream>((flags & NON_BLOCKING) != 0));
    return SUCCESS;
}

DRIVER_API cuStreamCreateWithPriority(Handle* stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

// What is under way ends, as on the hardware, which ends it later.
DRIVER_API cuStreamDestroy_v2(Handle handle) {
    BEGIN_CALL
    const std::shared_ptr<Stream> stream = card().streams.find(handle);
    if (stream == nullptr) {
        return unknown_stream();
    }
    const Result result = stream->run_all();
    card().streams.remove(handle);
    return result;
}

DRIVER_API cuStreamSynchronize(Handle handle) {
    BEGIN_CALL
    if (Card::is_null_stream(handle)) {
        const Result refused = card().refuse_in_capture();
        return refused != SUCCESS ? refused : card().enqueue(nullptr, [] { return SUCCESS; });
    }
    const std::shared_ptr<Stream> stream = card().streams.find(handle);
    if (stream == nullptr) {
        return unknown_stream();
    }
    if (stream->capture != nullptr) {
        stream->capture->invalidated = true;
        return card().complain(STREAM_CAPTURE_UNSUPPORTED, "a stream is waited for while it is captured");
    }
    return stream->run_all();
}

// Whoever asks makes the device go on by one piece of work: asking again and again comes to an end.
DRIVER_API cuStreamQuery(Handle handle) {
    BEGIN_CALL
    if (Card::is_null_stream(handle)) {
        return SUCCESS;
    }
    const std::shared_ptr<Stream> stream = card().streams.find(handle);
    if (stream == nullptr) {
        return unknown_stream();
    }
    if (stream->capture != nullptr) {
        stream->capture->invalidated = true;
        return card().complain(STREAM_CAPTURE_UNSUPPORTED, "a stream is asked for its state while it is captured");
    }
    const Result result = stream->run(stream->done + 1);
    return result != SUCCESS ? result : (stream->work.empty() ? SUCCESS : NOT_READY);
}

DRIVER_API cuStreamBeginCapture_v2(Handle handle, int mode) {
    BEGIN_CALL
    if (Card::is_null_stream(handle)) {
        return card().complain(STREAM_CAPTURE_UNSUPPORTED, "the NULL stream cannot be captured");
    }
    const std::shared_ptr<Stream> stream = card().streams.find(handle);
    if (stream == nullptr) {
        return unknown_stream();
    }
    if (stream->capture != nullptr) {
        return card().complain(INVALID_VALUE, "the stream is captured already");
    }
    stream->capture = std::make_unique<Capture>();
    stream->capture->mode = mode;
    return SUCCESS;
}

DRIVER_API cuStreamEndCapture(Handle handle, Handle* graph) {
    BEGIN_CALL
    *graph = nullptr;
    const std::shared_ptr<Stream> stream = card().streams.find(handle);
    if (stream == nullptr) {
        return unknown_stream();
    }
    if (stream->capture == nullptr) {
        return card().complain(INVALID_VALUE, "the stream is not captured");
    }
    if (stream->capture->mode <= MODE_THREAD_LOCAL && stream->capture->thread != std::this_thread::get_id()) {
        return card().complain(STREAM_CAPTURE_WRONG_THREAD, "the capture was begun by another thread");
    }
    const std::unique_ptr<Capture> capture = std::move(stream->capture);
    if (capture->invalidated) {
        return STREAM_CAPTURE_INVALIDATED;
    }
    *graph = card().graphs.add(capture->graph);
    return SUCCESS;
}

DRIVER_API cuStreamIsCapturing(Handle handle, int* status) {
    BEGIN_CALL
    *status = NONE;
    if (Card::is_null_stream(handle)) {
        return SUCCESS;
    }
    const std::shared_ptr<Stream> stream = card().streams.find(handle);
    if (stream == nullptr) {
        return unknown_stream();
    }
    if (stream->capture != nullptr) {
        *status = stream->capture->invalidated ? INVALIDATED : ACTIVE;
    }
    return SUCCESS;
}

DRIVER_API cuLaunchHostFunc(Handle stream, HostFunction function, void* data) {
    BEGIN_CALL
    return card().enqueue(stream, [=] {
        function(data);
        return SUCCESS;
    });
}
