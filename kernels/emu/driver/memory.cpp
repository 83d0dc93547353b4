// Ranges of memory by their first address.
#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <iterator>

#include "fresh_pages.h"

void* Memory::allocate(size_t bytes, size_t limit) {
    if (bytes > limit || used_ > limit - bytes) {
        return nullptr;
    }
    void* const address = take_fresh(bytes);
    if (address != nullptr) {
        allocations_[address] = bytes;
        used_ += bytes;
    }
    return address;
}

bool Memory::release(const void* address) {
    const auto found = allocations_.find(address);
    if (found == allocations_.end()) {
        return false;
    }
    used_ -= found->second;
    give_back(const_cast<void*>(address), found->second);
    allocations_.erase(found);
    return true;
}

void* Memory::allocate_host(size_t bytes) {
    constexpr size_t PAGE = 4096;
    void* address = nullptr;
    if (posix_memalign(&address, PAGE, bytes) != 0) {
        return nullptr;
    }
    memset(address, 0xFF, bytes);
    host_allocations_.insert(address);
    pin(address, bytes);
    return address;
}

bool Memory::release_host(void* address) {
    if (host_allocations_.erase(address) == 0) {
        return false;
    }
    unpin(address);
    free(address);
    return true;
}

void Memory::release_all() {
    while (!allocations_.empty()) {
        release(allocations_.begin()->first);
    }
    for (void* address : host_allocations_) {
        free(address);
    }
    host_allocations_.clear();
    pinned_.clear();
}

bool Memory::contains(const Ranges& ranges, const void* address, size_t bytes) {
    auto after = ranges.upper_bound(address);
    if (after == ranges.begin()) {
        return false;
    }
    const auto& [start, length] = *--after;
    const size_t offset = static_cast<const char*>(address) - static_cast<const char*>(start);
    return offset <= length && bytes <= length - offset;
}

bool Memory::find(const void* address, const void*& start, size_t& bytes) const {
    const auto after = allocations_.upper_bound(address);
    if (after == allocations_.begin() || !is_device(address, 1)) {
        return false;
    }
    start = std::prev(after)->first;
    bytes = std::prev(after)->second;
    return true;
}

bool Memory::is_device(const void* address, size_t bytes) const { return contains(allocations_, address, bytes); }

bool Memory::is_pinned(const void* address, size_t bytes) const { return contains(pinned_, address, bytes); }

bool Memory::is_argument(const void* address) const { return is_device(address, 0) || is_pinned(address, 0); }
