// Sums over a warp and a block in one written order, and bf16 in words.
#pragma once

#include "ptx.cuh"

constexpr uint32_t FULL_WARP = 0xffffffffu;

// Every lane gets the sum, by the same tree.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(FULL_WARP, x, step);
  return x;
}

// The sum over a block of whole warps, at most 32; `scratch` holds 32 floats. Ends with every thread behind a barrier.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x / 32) ? scratch[lane] : 0.0f);
}

// Four bf16 as floats, the first in the low half of `first`.
__device__ __forceinline__ float4 unpack_bf16(uint32_t first, uint32_t second) {
  const float2 low = __bfloat1622float2(bit_cast_<__nv_bfloat162>(first));
  const float2 high = __bfloat1622float2(bit_cast_<__nv_bfloat162>(second));
  return make_float4(low.x, low.y, high.x, high.y);
}

// Two floats as bf16, the first in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  return bit_cast_<uint32_t>(__floats2bfloat162_rn(low, high));
}
