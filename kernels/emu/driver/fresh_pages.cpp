// A large allocation maps one file of 0xFF bytes again and again, each page copied when it is first written: an engine that
// reserves most of a card for its cache costs a test machine nothing. Under the address sanitizer every allocation comes
// from the heap, to the byte, so that both of its ends are guarded.
#include "fresh_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t ALIGNMENT = 256;
constexpr size_t CHUNK = size_t{16} << 20;
#if defined(__SANITIZE_ADDRESS__)
constexpr bool MAY_MAP = false;
#else
constexpr bool MAY_MAP = true;
#endif

size_t rounded_to_chunks(size_t bytes) { return (bytes + CHUNK - 1) / CHUNK * CHUNK; }

// A file in memory with one chunk of 0xFF.
int make_chunk_file() {
    const int file = memfd_create("tokenmill-emu", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, CHUNK) != 0) {
        return -1;
    }
    void* const content = mmap(nullptr, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (content == MAP_FAILED) {
        return -1;
    }
    memset(content, 0xFF, CHUNK);
    munmap(content, CHUNK);
    return file;
}

void* map_chunks(size_t bytes) {
    static const int file = make_chunk_file();
    const size_t length = rounded_to_chunks(bytes);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* const address = file < 0 ? MAP_FAILED : mmap(nullptr, length, PROT_NONE, flags, -1, 0);
    if (address == MAP_FAILED) {
        return nullptr;
    }
    for (size_t offset = 0; offset < length; offset += CHUNK) {
        char* const chunk = static_cast<char*>(address) + offset;
        const int fixed = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
        if (mmap(chunk, CHUNK, PROT_READ | PROT_WRITE, fixed, file, 0) == MAP_FAILED) {
            munmap(address, length);
            return nullptr;
        }
    }
    return address;
}

}  // namespace

void* take_fresh(size_t bytes) {
    if (MAY_MAP && bytes >= CHUNK) {
        return map_chunks(bytes);
    }
    void* address = nullptr;
    if (posix_memalign(&address, ALIGNMENT, bytes) != 0) {
        return nullptr;
    }
    memset(address, 0xFF, bytes);
    return address;
}

void give_back(void* address, size_t bytes) {
    if (MAY_MAP && bytes >= CHUNK) {
        munmap(address, rounded_to_chunks(bytes));
    } else {
        free(address);
    }
}
