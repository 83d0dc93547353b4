// Allocations are hidden whole: what a kernel reads early lies in none that a kernel writes.
#include "former.h"

#include <algorithm>
#include <cstring>

namespace {

// Larger ones are reserved for what may come, and never hidden.
constexpr size_t LARGE = size_t{16} << 20;
constexpr unsigned char POISON = 0xFF;

bool is_poison(const char* bytes, size_t count) {
    return std::all_of(bytes, bytes + count, [](char byte) { return static_cast<unsigned char>(byte) == POISON; });
}

}  // namespace

emu::Former* FormerKernels::before_kernel(const Memory& memory, bool overlaps) {
    has_begun_ = false;
    if (!overlaps || !in_row_) {
        begin_row(memory);
        return nullptr;
    }
    for (auto at = unwritten_.begin(); at != unwritten_.end();) {
        auto& [address, bytes] = *at;
        const bool is_there = memory.is_device(address, bytes.size());
        if (is_there && memcmp(address, bytes.data(), bytes.size()) == 0) {
            ++at;
            continue;
        }
        if (is_there) {
            written_[address] = std::move(bytes);
        }
        at = unwritten_.erase(at);
    }
    return this;
}

void FormerKernels::end_row() {
    in_row_ = false;
    unwritten_.clear();
    written_.clear();
}

void FormerKernels::begin_row(const Memory& memory) {
    end_row();
    in_row_ = true;
    for (const auto& [address, bytes] : memory.allocations()) {
        if (bytes < LARGE) {
            const char* const first = static_cast<const char*>(address);
            unwritten_[const_cast<char*>(first)] = Bytes(first, first + bytes);
        }
    }
}

void FormerKernels::hide() {
    for (auto& [address, bytes] : written_) {
        memcpy(bytes.data(), address, bytes.size());
        memset(address, POISON, bytes.size());
    }
}

bool FormerKernels::show() {
    const bool untouched = is_untouched();
    for (const auto& [address, bytes] : written_) {
        memcpy(address, bytes.data(), bytes.size());
    }
    has_begun_ = true;
    return untouched;
}

bool FormerKernels::is_untouched() const {
    const auto as_hidden = [](const auto& range) { return is_poison(range.first, range.second.size()); };
    const auto as_before = [](const auto& range) { return memcmp(range.first, range.second.data(), range.second.size()) == 0; };
    return std::all_of(written_.begin(), written_.end(), as_hidden) &&
           (has_begun_ || std::all_of(unwritten_.begin(), unwritten_.end(), as_before));
}
