// Work in order.
#include "stream.h"

#include <utility>

#include "counts.h"

void Stream::push(Work piece) {
    work.push_back(std::move(piece));
    enqueued++;
}

Result Stream::run(uint64_t until) {
    counts.waits += done < until && !work.empty();
    while (done < until && !work.empty()) {
        const Work piece = std::move(work.front());
        work.pop_front();
        // Counted first: a piece may wait for this very stream's past.
        done++;
        if (const Result result = piece(); result != SUCCESS) {
            return result;
        }
    }
    return SUCCESS;
}

Result Mark::wait() {
    const std::shared_ptr<Stream> of = stream.lock();
    return of == nullptr || reached ? SUCCESS : of->run(position);
}
