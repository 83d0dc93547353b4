// Arithmetic intrinsics on plain numbers. The compiler is told not to contract: what is written is what is rounded.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emu_runtime.h"

namespace emu {

template <class To, class From>
inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits are kept, so the sizes must agree");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}

}  // namespace emu

// Bits.
inline uint32_t __float_as_uint(float x) { return emu::same_bits<uint32_t>(x); }
inline int __float_as_int(float x) { return emu::same_bits<int>(x); }
inline float __uint_as_float(uint32_t x) { return emu::same_bits<float>(x); }
inline float __int_as_float(int x) { return emu::same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu::same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu::same_bits<double>(x); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }

inline uint32_t __brev(uint32_t x) {
    uint32_t reversed = 0;
    for (int bit = 0; bit < 32; bit++) {
        reversed |= (x >> bit & 1) << (31 - bit);
    }
    return reversed;
}

// Each nibble of the selector picks one of the eight bytes of y:x; its top bit spreads that byte's sign.
inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
    const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
    uint32_t result = 0;
    for (int at = 0; at < 4; at++) {
        const uint32_t pick = selector >> (4 * at) & 15;
        uint32_t byte = bytes >> (8 * (pick & 7)) & 255;
        if (pick & 8) {
            byte = byte & 128 ? 255 : 0;
        }
        result |= byte << (8 * at);
    }
    return result;
}

inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t shift) {
    return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}

inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
    return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}

// Integers.
inline uint32_t __umulhi(uint32_t x, uint32_t y) { return static_cast<uint32_t>(static_cast<uint64_t>(x) * y >> 32); }
inline int __mulhi(int x, int y) { return static_cast<int>(static_cast<int64_t>(x) * y >> 32); }
inline uint64_t __umul64hi(uint64_t x, uint64_t y) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(x) * y >> 64);
}

inline int __dp4a(int a, int b, int sum) {
    for (int at = 0; at < 32; at += 8) {
        sum += static_cast<int8_t>(a >> at) * static_cast<int8_t>(b >> at);
    }
    return sum;
}

// Floats.
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline void __sincosf(float x, float* sine, float* cosine) {
    *sine = sinf(x);
    *cosine = cosf(x);
}
// NaN becomes zero, as the guide says.
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// Conversions saturate, and NaN becomes zero.
namespace emu {

template <class Int>
inline Int saturated(float rounded) {
    constexpr double low = static_cast<double>(std::numeric_limits<Int>::min());
    constexpr double high = static_cast<double>(std::numeric_limits<Int>::max());
    if (!(rounded == rounded)) {
        return 0;
    }
    if (rounded <= low) {
        return std::numeric_limits<Int>::min();
    }
    return rounded >= high ? std::numeric_limits<Int>::max() : static_cast<Int>(rounded);
}

}  // namespace emu

inline int __float2int_rn(float x) { return emu::saturated<int>(nearbyintf(x)); }
inline int __float2int_rz(float x) { return emu::saturated<int>(truncf(x)); }
inline int __float2int_rd(float x) { return emu::saturated<int>(floorf(x)); }
inline int __float2int_ru(float x) { return emu::saturated<int>(ceilf(x)); }
inline uint64_t __float2ull_rn(float x) { return emu::saturated<uint64_t>(nearbyintf(x)); }
inline unsigned __float2uint_rn(float x) { return emu::saturated<unsigned>(nearbyintf(x)); }
inline unsigned __float2uint_rz(float x) { return emu::saturated<unsigned>(truncf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

// CUDA's min and max take mixed integers, and of a number and NaN the number.
template <class A, class B>
inline std::common_type_t<A, B> min(A a, B b) {
    using Both = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<Both>) {
        return std::fmin(static_cast<Both>(a), static_cast<Both>(b));
    } else {
        return static_cast<Both>(b) < static_cast<Both>(a) ? static_cast<Both>(b) : static_cast<Both>(a);
    }
}

template <class A, class B>
inline std::common_type_t<A, B> max(A a, B b) {
    using Both = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<Both>) {
        return std::fmax(static_cast<Both>(a), static_cast<Both>(b));
    } else {
        return static_cast<Both>(a) < static_cast<Both>(b) ? static_cast<Both>(b) : static_cast<Both>(a);
    }
}

// Loads and stores with a cache's hint.
template <class T>
inline T __ldg(const T* from) {
    return *from;
}
template <class T>
inline T __ldcs(const T* from) {
    return *from;
}
template <class T>
inline T __ldcg(const T* from) {
    return *from;
}
template <class T>
inline T __ldca(const T* from) {
    return *from;
}
template <class T>
inline void __stcs(T* to, T value) {
    *to = value;
}
template <class T>
inline void __stcg(T* to, T value) {
    *to = value;
}

[[noreturn]] inline void __trap(emu::Site site = emu::Site::here("__trap")) {
    emu::fail(emu::Failure::failed, site, "the kernel stopped itself");
}
