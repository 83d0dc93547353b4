// CUDA's vector types, with the sizes and alignments of the programming guide. They know nothing of the emulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

// A vector of two or four is aligned to its whole size, but never beyond 16 bytes; one of three to its element.
constexpr size_t vector_alignment(size_t element, size_t count) {
    return element * count > 16 ? 16 : element * count;
}

}  // namespace emu

#define EMU_VECTOR_TYPES(Element, Name)                                                 \
    struct Name##1 {                                                                    \
        Element x;                                                                      \
    };                                                                                  \
    struct alignas(emu::vector_alignment(sizeof(Element), 2)) Name##2 {                 \
        Element x, y;                                                                   \
    };                                                                                  \
    struct Name##3 {                                                                    \
        Element x, y, z;                                                                \
    };                                                                                  \
    struct alignas(emu::vector_alignment(sizeof(Element), 4)) Name##4 {                 \
        Element x, y, z, w;                                                             \
    };                                                                                  \
    inline Name##1 make_##Name##1(Element x) { return {x}; }                            \
    inline Name##2 make_##Name##2(Element x, Element y) { return {x, y}; }              \
    inline Name##3 make_##Name##3(Element x, Element y, Element z) { return {x, y, z}; } \
    inline Name##4 make_##Name##4(Element x, Element y, Element z, Element w) { return {x, y, z, w}; }

EMU_VECTOR_TYPES(signed char, char)
EMU_VECTOR_TYPES(unsigned char, uchar)
EMU_VECTOR_TYPES(short, short)
EMU_VECTOR_TYPES(unsigned short, ushort)
EMU_VECTOR_TYPES(int, int)
EMU_VECTOR_TYPES(unsigned int, uint)
EMU_VECTOR_TYPES(long, long)
EMU_VECTOR_TYPES(unsigned long, ulong)
EMU_VECTOR_TYPES(long long, longlong)
EMU_VECTOR_TYPES(unsigned long long, ulonglong)
EMU_VECTOR_TYPES(float, float)
EMU_VECTOR_TYPES(double, double)

#undef EMU_VECTOR_TYPES

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 size) : x(size.x), y(size.y), z(size.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};
