// Device memory and pinned host memory: which addresses are whose, and how much is left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

#include "abi.h"

class Memory {
  public:
    // Fresh memory is full of 0xFF. Null where the card has not so much left.
    void* allocate(size_t bytes, size_t limit);
    bool release(const void* address);
    void release_all();
    size_t used() const { return used_; }

    // Pinned host memory, full of 0xFF too.
    void* allocate_host(size_t bytes);
    bool release_host(void* address);

    // Whether all of it lies within one allocation.
    bool is_device(const void* address, size_t bytes) const;
    // The first byte and the length of the allocation that the address lies in; false where there is none.
    bool find(const void* address, const void*& start, size_t& bytes) const;
    // Whether a kernel may be given the address: in an allocation, at its end, or in pinned memory.
    bool is_argument(const void* address) const;

    void pin(void* address, size_t bytes) { pinned_[address] = bytes; }
    bool unpin(const void* address) { return pinned_.erase(address) > 0; }
    bool is_pinned(const void* address, size_t bytes) const;

    using Ranges = std::map<const void*, size_t>;
    const Ranges& allocations() const { return allocations_; }

  private:
    static bool contains(const Ranges& ranges, const void* address, size_t bytes);

    Ranges allocations_;
    Ranges pinned_;
    std::set<void*> host_allocations_;
    size_t used_ = 0;
};
