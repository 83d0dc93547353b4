// Rows by index: embeddings, and the rows whose logits are wanted.
//
//   embed_rows   ids [T], table [V, cols] bf16  ->  out [T, cols] f32 = table[ids] * scale
//   gather_rows  ids [R], x [T, cols] f32       ->  out [R, cols] f32 = x[ids]
//   tiling    one block a row;  cols a multiple of 4
//   roofline  bytes read and written / DRAM bandwidth
#include "vectors.cuh"

struct Rows {
  const uint32_t* ids;
  const void* from;
  float* out;
  int cols;
  float scale;  // of embeddings
};

__device__ __forceinline__ float4* target(const Rows& p) {
  return reinterpret_cast<float4*>(p.out + static_cast<size_t>(blockIdx.x) * p.cols);
}

extern "C" __global__ void __launch_bounds__(128) embed_rows(const Rows p) {
  const __nv_bfloat16* table = static_cast<const __nv_bfloat16*>(p.from);
  const uint2* row = reinterpret_cast<const uint2*>(table + static_cast<size_t>(p.ids[blockIdx.x]) * p.cols);
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) {
    const uint2 v = row[at];
    const float2 low = __bfloat1622float2(bit_cast_<__nv_bfloat162>(v.x));
    const float2 high = __bfloat1622float2(bit_cast_<__nv_bfloat162>(v.y));
    target(p)[at] = make_float4(low.x * p.scale, low.y * p.scale, high.x * p.scale, high.y * p.scale);
  }
}

extern "C" __global__ void __launch_bounds__(128) gather_rows(const Rows p) {
  const float* x = static_cast<const float*>(p.from);
  const float4* row = reinterpret_cast<const float4*>(x + static_cast<size_t>(p.ids[blockIdx.x]) * p.cols);
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) target(p)[at] = row[at];
}
