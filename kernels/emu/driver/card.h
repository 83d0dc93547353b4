// The card: everything that the entry points share. One at a time may look at it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "abi.h"
#include "emu_launch.h"
#include "former.h"
#include "memory.h"
#include "settings.h"
#include "stream.h"

// A kernel that a module was asked for.
struct Function {
    const emu::Kernel* kernel;
    // Dynamic shared memory that a launch may ask for, where that was set; without, static arrays and it have 48 KiB together.
    std::optional<size_t> reserved_shared{};
};

struct Module {
    std::map<std::string, std::unique_ptr<Function>> functions;
};

// Objects by handle. A handle that was destroyed, or never made, finds nothing.
template <class T>
class Objects {
  public:
    Handle add(std::shared_ptr<T> object) {
        T* const handle = object.get();
        objects_[handle] = std::move(object);
        return handle;
    }
    std::shared_ptr<T> find(Handle handle) const {
        const auto found = objects_.find(handle);
        return found == objects_.end() ? nullptr : found->second;
    }
    bool remove(Handle handle) { return objects_.erase(handle) > 0; }
    void clear() { objects_.clear(); }
    const std::map<Handle, std::shared_ptr<T>>& all() const { return objects_; }

  private:
    std::map<Handle, std::shared_ptr<T>> objects_;
};

struct Card {
    std::recursive_mutex mutex;
    bool initialized = false;
    unsigned num_contexts = 0;
    Settings settings = Settings::from_environment();
    // What every call returns since a kernel failed.
    Result broken = SUCCESS;
    unsigned long num_launches = 0;
    // Of all contexts.
    unsigned long num_launches_ever = 0;
    unsigned long num_allocations = 0;

    Memory memory;
    FormerKernels former_kernels;
    // Kernels that have run to their end, in any context.
    std::set<std::string> launched;
    Objects<Stream> streams;
    Objects<Event> events;
    Objects<Module> modules;
    Objects<Graph> graphs;
    Objects<Graph> executable_graphs;

    // All of them, whose handles are functions' own addresses.
    std::set<Handle> functions;

    // The stream of a handle; null for the NULL stream and its aliases, which have none.
    static bool is_null_stream(Handle handle);

    // Runs what is under way on all streams.
    Result run_everything();
    // Appends work to a stream, or to the graph that is captured from it.
    Result enqueue(Handle stream, Work work);
    // The same for a kernel, which may overlap the one before.
    Result enqueue_kernel(Handle stream, Work work);
    // Tells whoever wants to know that a kernel has run.
    void note_launched(const char* name);
    // For what must not be done while a capture is under way (allocation, synchronization): invalidates it and says so.
    Result refuse_in_capture();
    // Says once why a call failed, and returns the code.
    Result complain(Result code, const std::string& why);

    void reset();
};

Card& card();

// Locks the card for a call; and the call must end at once where the result is not SUCCESS.
struct Call {
    Call();
    std::lock_guard<std::recursive_mutex> lock;
    Result result;
};

// The beginning of an entry point that needs a working card.
#define BEGIN_CALL                    \
    const Call call;                  \
    if (call.result != SUCCESS) {     \
        return call.result;           \
    }
