// RMSNorm: y = x / sqrt(mean(x^2) + eps) * gain.
//
//   x [T, cols] f32, gain [cols] f32  ->  y [T, cols] bf16;  cols a multiple of 4
//   tiling    one block of 256 threads a row, the row read twice (the second time from a cache)
//   roofline  6 T cols bytes / DRAM bandwidth
#include "vectors.cuh"

struct Norm {
  const float* x;
  const float* gain;
  __nv_bfloat16* y;
  int cols;
  float eps;
};

extern "C" __global__ void __launch_bounds__(256) rms_norm(const Norm p) {
  SMEM_ARRAY(float, scratch, 32);
  after_former_kernel();
  const float4* row = reinterpret_cast<const float4*>(p.x + static_cast<size_t>(blockIdx.x) * p.cols);
  const float4* gains = reinterpret_cast<const float4*>(p.gain);
  uint2* out = reinterpret_cast<uint2*>(p.y + static_cast<size_t>(blockIdx.x) * p.cols);
  float squares = 0.0f;
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) {
    const float4 v = row[at];
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float scale = rsqrtf(block_sum(squares, scratch) / p.cols + p.eps);
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) {
    const float4 v = row[at], g = gains[at];
    out[at] = make_uint2(pack_bf16(v.x * scale * g.x, v.y * scale * g.y), pack_bf16(v.z * scale * g.z, v.w * scale * g.w));
  }
}
