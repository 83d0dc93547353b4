// Pairs of bf16 and of half, and arithmetic on them: every result is rounded once, to the type's own precision.
#pragma once

#include <cmath>

#include "emu_numbers.h"

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

struct alignas(4) __half2 {
    __half x, y;
};

using nv_bfloat162 = __nv_bfloat162;
using half2 = __half2;

namespace emu {

// f32 holds sums, differences and products of two such numbers well enough that rounding again changes nothing.
template <class Number>
inline Number added(Number a, Number b) {
    return Number(float(a) + float(b));
}

template <class Number>
inline Number subtracted(Number a, Number b) {
    return Number(float(a) - float(b));
}

template <class Number>
inline Number multiplied(Number a, Number b) {
    return Number(float(a) * float(b));
}

// a + b in 53 bits; where that is not exact, the neighbour with an odd last bit, which no later rounding takes for a tie.
inline double added_to_odd(double a, double b) {
    const double sum = a + b;
    const double of_b = sum - a;
    const double lost = (a - (sum - of_b)) + (b - of_b);
    const uint64_t bits = same_bits<uint64_t>(sum);
    if (!(lost != 0.0) || bits % 2 == 1) {
        return sum;
    }
    return same_bits<double>((lost > 0.0) == (sum > 0.0) ? bits + 1 : bits - 1);
}

// The product is exact in f64.
template <class Number>
inline Number fused(Number a, Number b, Number c) {
    return Number(round_to_odd(added_to_odd(double(float(a)) * double(float(b)), double(float(c)))));
}

template <class Pair, class Operation>
inline Pair each(Operation operation, Pair a, Pair b) {
    return {operation(a.x, b.x), operation(a.y, b.y)};
}

}  // namespace emu

#define EMU_PAIR_ARITHMETIC(Number, Pair)                                                                              \
    inline Number __hadd(Number a, Number b) { return emu::added(a, b); }                                              \
    inline Number __hsub(Number a, Number b) { return emu::subtracted(a, b); }                                         \
    inline Number __hmul(Number a, Number b) { return emu::multiplied(a, b); }                                         \
    inline Number __hfma(Number a, Number b, Number c) { return emu::fused(a, b, c); }                                 \
    inline Number __hmax(Number a, Number b) { return Number(fmaxf(float(a), float(b))); }                             \
    inline Number __hmin(Number a, Number b) { return Number(fminf(float(a), float(b))); }                             \
    inline Number __hneg(Number a) { return Number(-float(a)); }                                                       \
    inline Pair __hadd2(Pair a, Pair b) { return emu::each(emu::added<Number>, a, b); }                                \
    inline Pair __hsub2(Pair a, Pair b) { return emu::each(emu::subtracted<Number>, a, b); }                           \
    inline Pair __hmul2(Pair a, Pair b) { return emu::each(emu::multiplied<Number>, a, b); }                           \
    inline Pair __hfma2(Pair a, Pair b, Pair c) { return {emu::fused(a.x, b.x, c.x), emu::fused(a.y, b.y, c.y)}; }     \
    inline Pair __hmax2(Pair a, Pair b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                               \
    inline Pair __hmin2(Pair a, Pair b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                               \
    inline float __low2float(Pair pair) { return float(pair.x); }                                                      \
    inline float __high2float(Pair pair) { return float(pair.y); }

EMU_PAIR_ARITHMETIC(__nv_bfloat16, __nv_bfloat162)
EMU_PAIR_ARITHMETIC(__half, __half2)

#undef EMU_PAIR_ARITHMETIC

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 pair) { return __floats2bfloat162_rn(pair.x, pair.y); }
inline __nv_bfloat162 __float2bfloat162_rn(float x) { return __floats2bfloat162_rn(x, x); }
inline float2 __bfloat1622float2(__nv_bfloat162 pair) { return {float(pair.x), float(pair.y)}; }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 pair) { return pair.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 pair) { return pair.y; }

inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 pair) { return __floats2half2_rn(pair.x, pair.y); }
inline __half2 __float2half2_rn(float x) { return __floats2half2_rn(x, x); }
inline float2 __half22float2(__half2 pair) { return {float(pair.x), float(pair.y)}; }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half __low2half(__half2 pair) { return pair.x; }
inline __half __high2half(__half2 pair) { return pair.y; }

// Two numbers as e4m3, the first in the low byte. CUDA's header knows other modes and types; kernels use these.
using __nv_fp8x2_storage_t = unsigned short;
enum __nv_saturation_t { __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3 };
inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 pair, __nv_saturation_t, __nv_fp8_interpretation_t) {
    return static_cast<__nv_fp8x2_storage_t>(emu::e4m3_bits(pair.x) | emu::e4m3_bits(pair.y) << 8);
}
