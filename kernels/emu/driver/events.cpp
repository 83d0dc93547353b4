// Entry points for events: marks in streams.
#include "card.h"

namespace {

constexpr unsigned DISABLE_TIMING = 2;

Result unknown_event() { return card().complain(INVALID_HANDLE, "an event that does not exist"); }

Result mark_of(Handle handle, std::shared_ptr<Mark>& mark) {
    const std::shared_ptr<Event> event = card().events.find(handle);
    if (event == nullptr) {
        return unknown_event();
    }
    if (event->captured) {
        return card().complain(CAPTURED_EVENT, "an event that was recorded in a capture marks no work");
    }
    mark = event->mark;
    return SUCCESS;
}

}  // namespace

DRIVER_API cuEventCreate(Handle* event, unsigned flags) {
    BEGIN_CALL
    const auto made = std::make_shared<Event>();
    made->timed = (flags & DISABLE_TIMING) == 0;
    *event = card().events.add(made);
    return SUCCESS;
}

DRIVER_API cuEventDestroy_v2(Handle event) {
    BEGIN_CALL
    return card().events.remove(event) ? SUCCESS : unknown_event();
}

DRIVER_API cuEventRecord(Handle handle, Handle stream_handle) {
    BEGIN_CALL
    const std::shared_ptr<Event> event = card().events.find(handle);
    if (event == nullptr) {
        return unknown_event();
    }
    const std::shared_ptr<Stream> stream = card().streams.find(stream_handle);
    event->captured = stream != nullptr && stream->capture != nullptr;
    if (event->captured) {
        return SUCCESS;
    }
    event->mark = std::make_shared<Mark>();
    event->mark->stream = stream;
    event->mark->position = stream == nullptr ? 0 : stream->enqueued + 1;
    return card().enqueue(stream_handle, [mark = event->mark] {
        mark->reached = true;
        mark->time = std::chrono::steady_clock::now();
        return SUCCESS;
    });
}

DRIVER_API cuEventSynchronize(Handle handle) {
    BEGIN_CALL
    std::shared_ptr<Mark> mark;
    const Result result = mark_of(handle, mark);
    return result != SUCCESS || mark == nullptr ? result : mark->wait();
}

// As with cuStreamQuery, asking makes the device go on.
DRIVER_API cuEventQuery(Handle handle) {
    BEGIN_CALL
    std::shared_ptr<Mark> mark;
    if (const Result result = mark_of(handle, mark); result != SUCCESS || mark == nullptr) {
        return result;
    }
    if (const std::shared_ptr<Stream> stream = mark->stream.lock(); stream != nullptr && !mark->reached) {
        if (const Result result = stream->run(stream->done + 1); result != SUCCESS) {
            return result;
        }
    }
    return mark->reached ? SUCCESS : NOT_READY;
}

DRIVER_API cuEventElapsedTime_v2(float* milliseconds, Handle start, Handle end) {
    BEGIN_CALL
    const std::shared_ptr<Event> first = card().events.find(start);
    const std::shared_ptr<Event> last = card().events.find(end);
    if (first == nullptr || last == nullptr) {
        return unknown_event();
    }
    if (!first->timed || !last->timed || first->mark == nullptr || last->mark == nullptr) {
        return card().complain(INVALID_HANDLE, "the time between events that are not timed or not recorded");
    }
    if (!first->mark->reached || !last->mark->reached) {
        return NOT_READY;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(last->mark->time - first->mark->time).count();
    return SUCCESS;
}

DRIVER_API cuEventElapsedTime(float* milliseconds, Handle start, Handle end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

DRIVER_API cuStreamWaitEvent(Handle stream_handle, Handle event_handle, unsigned) {
    BEGIN_CALL
    const std::shared_ptr<Event> event = card().events.find(event_handle);
    if (event == nullptr) {
        return unknown_event();
    }
    const std::shared_ptr<Stream> stream = card().streams.find(stream_handle);
    const bool capturing = stream != nullptr && stream->capture != nullptr;
    if (event->captured) {
        return capturing ? SUCCESS : card().complain(NOT_SUPPORTED, "a capture that spreads to a second stream is not emulated");
    }
    if (event->mark == nullptr) {
        return SUCCESS;
    }
    if (capturing) {
        stream->capture->invalidated = true;
        return card().complain(STREAM_CAPTURE_ISOLATION, "a captured stream waits for an event from outside of the capture");
    }
    return card().enqueue(stream_handle, [mark = event->mark] { return mark->wait(); });
}
