// The scales of GGUF's super-blocks of 256 weights, as the file has them but for their order.
//
//   Q4_K  four words: 24 bits for each 64 weights, lowest first: scales of both 32, then minimums of both; then d and dmin, f16
//   Q6_K  sixteen signed bytes, one for 16 weights; d, f16, lies apart
#pragma once

#include "ptx.cuh"

// Scale and minimum of group `group` (0 or 1) of the 64 weights `quarter`: value = scale * code + minimum.
__device__ __forceinline__ float2 q4k_factors(const uint32_t* words, int quarter, int group) {
  const int bit = quarter * 24;
  const uint32_t fields = __funnelshift_r(words[bit / 32], words[bit / 32 + 1], bit % 32) >> group * 6;
  const float2 d = __half22float2(bit_cast_<__half2>(words[3]));
  return make_float2(d.x * static_cast<float>(fields & 63u), -(d.y * static_cast<float>(fields >> 12 & 63u)));
}
