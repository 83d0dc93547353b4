// FP8 e4m3: how numbers become codes, and how codes are multiplied on each architecture.
//
//   scale of some numbers   the largest magnitude / 448, or 1 where all are zero; NaN where one is not a number, so that what is made of
//                           them shows it
//   code                    number / scale to the nearest, ties to even, saturated
//
// sm_89 and sm_120 multiply e4m3 in their tensor cores. Elsewhere codes become f16, which holds each exactly, and so do the products:
// architectures differ in the order in which 32 products are added, and in nothing else.
#pragma once

#include "vectors.cuh"

constexpr float E4M3_MAX = 448.0f;

// Magnitudes as integers: ordered as the numbers are, and NaN above all.
__device__ __forceinline__ uint32_t magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

__device__ __forceinline__ uint32_t magnitude(const float4& v) {
  return max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
}

__device__ __forceinline__ uint32_t warp_max(uint32_t x) { return __reduce_max_sync(FULL_WARP, x); }

// The largest over a block of whole warps, at most 32; `scratch` holds 32 words.
__device__ __forceinline__ uint32_t block_max(uint32_t x, uint32_t* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  x = warp_max(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warp_max(lane < static_cast<int>(blockDim.x / 32) ? scratch[lane] : 0u);
}

__device__ __forceinline__ float e4m3_scale(float largest) {
  const float scale = largest / E4M3_MAX;
  return scale == 0.0f ? 1.0f : scale;
}

// Divides many numbers by one scale: their product with its reciprocal, and a correction by what that leaves over, which a float holds
// exactly. So a quotient is rounded as that of a division, which takes five times as long where a block waits for it; but zeros are
// positive, and all is NaN of a scale that is infinite. Of tiny scales both sides are lifted first, as there is less left over than floats reach.
struct Divisor {
  float scale, lift, lifted, inverse;

  __device__ __forceinline__ explicit Divisor(float scale)
      : scale(scale), lift(scale < 0x1p-64f ? 0x1p100f : 1.0f), lifted(scale * lift), inverse(1.0f / lifted) {}

  __device__ __forceinline__ float divide(float x) const {
    const float number = x * lift, quotient = __fmul_rn(number, inverse);
    return __fmaf_rn(__fmaf_rn(-lifted, quotient, number), inverse, quotient);
  }
};

// Four codes, the first in the low byte.
__device__ __forceinline__ uint32_t pack_e4m3(const float4& v, const Divisor& by) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(by.divide(v.x), by.divide(v.y)), __NV_SATFINITE, __NV_E4M3);
  const uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(by.divide(v.z), by.divide(v.w)), __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}

// Two codes of a word as f16: those in its low half, or in its high one. With `SHIFTED` by moving bits alone: the exponents then count
// from -15 where they should from -7, and the value is 2^-8 of what it should be, its smallest too, which f16 holds as subnormals.
template <bool SHIFTED>
__device__ __forceinline__ uint32_t f16_pair(uint32_t word, bool high) {
  if constexpr (SHIFTED) {
    const uint32_t bytes = __byte_perm(word, 0, high ? 0x3424 : 0x1404);
    return (bytes & 0x80008000u) | (bytes >> 1 & 0x3f803f80u);
  } else {
#if defined(CUDA_EMU) || __CUDA_ARCH__ >= 890
    return f16x2_of_e4m3x2(high ? word >> 16 : word);
#else
    return 0;
#endif
  }
}

// Products of e4m3 by f16's tensor cores. Both operands give the low pairs of their words first: which k meet does not change.
template <bool SHIFTED>
struct E4m3ByHalves {
  static constexpr float UNIT = SHIFTED ? 65536.0f : 1.0f;

  __device__ static __forceinline__ void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#pragma unroll
    for (int high = 0; high < 2; high++) {
      uint32_t rows[4], columns[2];
#pragma unroll
      for (int idx = 0; idx < 4; idx++) rows[idx] = f16_pair<SHIFTED>(a[idx], high);
#pragma unroll
      for (int idx = 0; idx < 2; idx++) columns[idx] = f16_pair<SHIFTED>(b[idx], high);
      mma_m16n8k16_f16(d, rows, columns);
    }
  }
};

#if defined(CUDA_EMU) || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200

struct E4m3Products {
  static constexpr float UNIT = 1.0f;

  __device__ static __forceinline__ void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k32_e4m3(d, a, b);
  }
};

#elif __CUDA_ARCH__ >= 890
using E4m3Products = E4m3ByHalves<false>;
#else
using E4m3Products = E4m3ByHalves<true>;
#endif
