// Warp intrinsics: meetings of lanes, at which each brings a value and takes one home.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emu_runtime.h"

namespace emu {

// What a lane brings to a shuffle: its value, and the lane to read from (itself where the source is out of range).
template <class T>
struct Shuffle {
    T value;
    unsigned source;
    T result;
    const Site* site;
};

template <class T>
inline T shuffle(uint32_t mask, T value, unsigned source, const Site& site) {
    Shuffle<T> mine{value, source, value, &site};
    collective(mask, site, &mine, [](uint32_t present, void** operands) {
        for (unsigned lane = 0; lane < 32; lane++) {
            if (!(present >> lane & 1)) {
                continue;
            }
            auto& reader = *static_cast<Shuffle<T>*>(operands[lane]);
            if (!(present >> reader.source & 1)) {
                fail(Failure::failed, *reader.site, "lane %u reads lane %u, which takes no part", lane, reader.source);
            }
            reader.result = static_cast<Shuffle<T>*>(operands[reader.source])->value;
        }
    });
    return mine.result;
}

// What a lane brings to a reduction over `Operation(T, T)`.
template <class T>
struct Reduction {
    T value;
    T result;
};

template <class Operation, class T>
inline T reduce(uint32_t mask, T value, const Site& site) {
    Reduction<T> mine{value, value};
    collective(mask, site, &mine, [](uint32_t present, void** operands) {
        T total{};
        bool first = true;
        for (unsigned lane = 0; lane < 32; lane++) {
            if (present >> lane & 1) {
                const T next = static_cast<Reduction<T>*>(operands[lane])->value;
                total = first ? next : Operation::of(total, next);
                first = false;
            }
        }
        for (unsigned lane = 0; lane < 32; lane++) {
            if (present >> lane & 1) {
                static_cast<Reduction<T>*>(operands[lane])->result = total;
            }
        }
    });
    return mine.result;
}

struct Sum {
    template <class T>
    static T of(T a, T b) {
        return a + b;
    }
};

struct Least {
    template <class T>
    static T of(T a, T b) {
        return b < a ? b : a;
    }
};

struct Greatest {
    template <class T>
    static T of(T a, T b) {
        return a < b ? b : a;
    }
};

struct AnyBit {
    template <class T>
    static T of(T a, T b) {
        return a | b;
    }
};

struct EveryBit {
    template <class T>
    static T of(T a, T b) {
        return a & b;
    }
};

// The first lane of the caller's segment of `width` lanes.
inline unsigned segment(int width) { return current->lane & ~static_cast<unsigned>(width - 1); }

}  // namespace emu

template <class T>
inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32, emu::Site site = emu::Site::here("__shfl_sync")) {
    return emu::shuffle(mask, value, emu::segment(width) | (source & (width - 1)), site);
}

template <class T>
inline T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32,
                         emu::Site site = emu::Site::here("__shfl_xor_sync")) {
    const unsigned lane = emu::current->lane;
    const unsigned source = lane ^ static_cast<unsigned>(bits);
    return emu::shuffle(mask, value, source < emu::segment(width) + width ? source : lane, site);
}

template <class T>
inline T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32,
                          emu::Site site = emu::Site::here("__shfl_down_sync")) {
    const unsigned lane = emu::current->lane;
    return emu::shuffle(mask, value, lane + by < emu::segment(width) + width ? lane + by : lane, site);
}

template <class T>
inline T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32,
                        emu::Site site = emu::Site::here("__shfl_up_sync")) {
    const unsigned lane = emu::current->lane;
    return emu::shuffle(mask, value, lane >= emu::segment(width) + by ? lane - by : lane, site);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, emu::Site site = emu::Site::here("__ballot_sync")) {
    return emu::reduce<emu::AnyBit>(mask, predicate ? 1u << emu::current->lane : 0u, site);
}

inline int __any_sync(uint32_t mask, int predicate, emu::Site site = emu::Site::here("__any_sync")) {
    return emu::reduce<emu::AnyBit>(mask, predicate ? 1 : 0, site);
}

inline int __all_sync(uint32_t mask, int predicate, emu::Site site = emu::Site::here("__all_sync")) {
    return emu::reduce<emu::EveryBit>(mask, predicate ? 1 : 0, site);
}

// CUDA reduces int and unsigned only; floats take shuffles.
#define EMU_WARP_REDUCTION(name, Operation)                                                            \
    template <class T>                                                                                 \
    inline T name(uint32_t mask, T value, emu::Site site = emu::Site::here(#name)) {                   \
        static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>, #name " of int or unsigned"); \
        return emu::reduce<emu::Operation>(mask, value, site);                                         \
    }

EMU_WARP_REDUCTION(__reduce_add_sync, Sum)
EMU_WARP_REDUCTION(__reduce_min_sync, Least)
EMU_WARP_REDUCTION(__reduce_max_sync, Greatest)
EMU_WARP_REDUCTION(__reduce_or_sync, AnyBit)
EMU_WARP_REDUCTION(__reduce_and_sync, EveryBit)

#undef EMU_WARP_REDUCTION

inline void __syncwarp(uint32_t mask = 0xffffffffu, emu::Site site = emu::Site::here("__syncwarp")) {
    emu::collective(mask, site, nullptr, nullptr);
}

inline int __syncthreads_or(int predicate, emu::Site site = emu::Site::here("__syncthreads_or")) {
    return emu::barrier(predicate != 0, site).any;
}

inline int __syncthreads_and(int predicate, emu::Site site = emu::Site::here("__syncthreads_and")) {
    return emu::barrier(predicate != 0, site).all;
}

inline int __syncthreads_count(int predicate, emu::Site site = emu::Site::here("__syncthreads_count")) {
    return emu::barrier(predicate != 0, site).count;
}
