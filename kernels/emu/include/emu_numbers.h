// Numbers of 16 and 8 bits: bf16, half and e4m3, with the conversions of cuda_bf16.h, cuda_fp16.h and cuda_fp8.h.
//
// The types are bits and nothing more. CUDA's own convert by themselves; here a conversion must be written, so that no
// kernel rounds where its author did not look.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emu_math.h"

namespace emu {

// The compiler's own half: both architectures convert it in hardware, or correctly in software.
#if defined(__aarch64__)
using NativeHalf = __fp16;
#else
using NativeHalf = _Float16;
#endif

// bf16, nearest even; every NaN becomes 0x7fff.
inline uint16_t bf16_bits(float x) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fff;
    }
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float bf16_value(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }

inline uint16_t half_bits(float x) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fff;
    }
    return same_bits<uint16_t>(static_cast<NativeHalf>(x));
}

inline float half_value(uint16_t bits) { return static_cast<float>(same_bits<NativeHalf>(bits)); }

// Rounds to 24 bits towards an odd last bit, which keeps the second rounding of a fused operation correct.
inline float round_to_odd(double x) {
    const float near = static_cast<float>(x);
    const double difference = x - static_cast<double>(near);
    if (!(difference != 0.0) || !std::isfinite(near)) {
        return near;
    }
    uint32_t bits = __float_as_uint(near);
    if ((difference < 0.0) != std::signbit(near)) {
        bits -= 1;
    }
    return __uint_as_float(bits | 1);
}

// e4m3: sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinity, and one NaN per sign.
inline float e4m3_decoded(uint8_t bits) {
    const int exponent = bits >> 3 & 15;
    const int mantissa = bits & 7;
    if (exponent == 15 && mantissa == 7) {
        return __uint_as_float(0x7fffffffu);
    }
    const float size = exponent ? ldexpf(8.0f + mantissa, exponent - 10) : ldexpf(mantissa, -9);
    return bits & 128 ? -size : size;
}

inline float e4m3_value(uint8_t bits) {
    struct Table {
        float value[256];
        Table() {
            for (int at = 0; at < 256; at++) {
                value[at] = e4m3_decoded(static_cast<uint8_t>(at));
            }
        }
    };
    static const Table table;
    return table.value[bits];
}

// Nearest even, saturated to 448.
inline uint8_t e4m3_bits(float x) {
    constexpr int LARGEST = 0x7e;
    const uint8_t sign = std::signbit(x) ? 0x80 : 0;
    const float size = fabsf(x);
    if (!(size == size)) {
        return sign | 0x7f;
    }
    if (size >= 448.0f) {
        return sign | LARGEST;
    }
    int exponent;
    frexpf(size, &exponent);
    exponent -= 1;
    if (size == 0.0f || exponent < -6) {
        exponent = -6;
    }
    // In units of the last bit: 8 to 16 for normal numbers, below 8 for the smallest. 16 carries into the exponent by itself.
    const int units = static_cast<int>(nearbyintf(ldexpf(size, 3 - exponent)));
    return sign | static_cast<uint8_t>(((exponent + 6) << 3) + units);
}

}  // namespace emu

struct __nv_bfloat16 {
    uint16_t __x;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float x) : __x(emu::bf16_bits(x)) {}
    explicit operator float() const { return emu::bf16_value(__x); }
};

struct __half {
    uint16_t __x;
    __half() = default;
    explicit __half(float x) : __x(emu::half_bits(x)) {}
    explicit operator float() const { return emu::half_value(__x); }
};

struct __nv_fp8_e4m3 {
    uint8_t __x;
    __nv_fp8_e4m3() = default;
    explicit __nv_fp8_e4m3(float x) : __x(emu::e4m3_bits(x)) {}
    explicit operator float() const { return emu::e4m3_value(__x); }
};

using nv_bfloat16 = __nv_bfloat16;
using half = __half;

inline float __bfloat162float(__nv_bfloat16 x) { return emu::bf16_value(x.__x); }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return emu::same_bits<__nv_bfloat16>(bits); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.__x; }

inline float __half2float(__half x) { return emu::half_value(x.__x); }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __ushort_as_half(unsigned short bits) { return emu::same_bits<__half>(bits); }
inline unsigned short __half_as_ushort(__half x) { return x.__x; }

inline float __fp8_to_float(__nv_fp8_e4m3 x) { return emu::e4m3_value(x.__x); }
inline __nv_fp8_e4m3 __float_to_fp8(float x) { return __nv_fp8_e4m3(x); }
