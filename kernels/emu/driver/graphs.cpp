// Entry points for graphs: work that was captured, and runs as often as it is launched.
#include "card.h"
#include "counts.h"

namespace {

Result unknown_graph() { return card().complain(INVALID_HANDLE, "a graph that does not exist"); }

}  // namespace

DRIVER_API cuGraphInstantiateWithFlags(Handle* executable, Handle handle, unsigned long long) {
    BEGIN_CALL
    const std::shared_ptr<Graph> graph = card().graphs.find(handle);
    if (graph == nullptr) {
        return unknown_graph();
    }
    *executable = card().executable_graphs.add(std::make_shared<Graph>(*graph));
    return SUCCESS;
}

DRIVER_API cuGraphDestroy(Handle graph) {
    BEGIN_CALL
    return card().graphs.remove(graph) ? SUCCESS : unknown_graph();
}

DRIVER_API cuGraphExecDestroy(Handle graph) {
    BEGIN_CALL
    return card().executable_graphs.remove(graph) ? SUCCESS : unknown_graph();
}

DRIVER_API cuGraphUpload(Handle graph, Handle) {
    BEGIN_CALL
    return card().executable_graphs.find(graph) != nullptr ? SUCCESS : unknown_graph();
}

DRIVER_API cuGraphLaunch(Handle handle, Handle stream) {
    BEGIN_CALL
    const std::shared_ptr<Graph> graph = card().executable_graphs.find(handle);
    if (graph == nullptr) {
        return unknown_graph();
    }
    counts.replays++;
    return card().enqueue(stream, [graph] {
        for (const Work& work : *graph) {
            if (const Result result = work(); result != SUCCESS) {
                return result;
            }
        }
        return SUCCESS;
    });
}
