// Rows on their way to the experts and back.
//
//   moe_gather  x [T, chunks] of 16 bytes, and scales [groups, from_stride] f32 where there are any  ->  out [rows, chunks], out_scales
//               [groups, to_stride]: row r is the token of pair order[r]; rows that no expert has stay as they are
//   moe_sum     y [rows, cols] f32  ->  onto [T, cols] f32 += weights[slot] * y[row of the slot], slot by slot from zero: no atomics, and
//               a token's sum does not depend on where its rows lie
//   tiling      a block of 128 threads a row; cols a multiple of 4
//   roofline    bytes read and written / DRAM bandwidth
#include "vectors.cuh"

struct Gather {
  const uint4* x;
  const float* scales;
  const uint32_t* order;
  const uint2* tiles;
  uint4* out;
  float* out_scales;
  int chunks, groups, from_stride, to_stride;
  int tile_rows, top_k;
};

struct Sum {
  const float* y;
  const uint32_t* rows;
  const float* weights;
  float* onto;
  int cols, top_k;
};

extern "C" __global__ void __launch_bounds__(128) moe_gather(const Gather p) {
  after_former_kernel();
  const uint32_t row = blockIdx.x;
  if (row >= p.tiles[row / p.tile_rows].y) return;
  const uint32_t token = p.order[row] / p.top_k;
  const uint4* from = p.x + static_cast<size_t>(token) * p.chunks;
  uint4* to = p.out + static_cast<size_t>(row) * p.chunks;
  for (int at = threadIdx.x; at < p.chunks; at += blockDim.x) to[at] = from[at];
  for (int group = threadIdx.x; group < p.groups; group += blockDim.x) {
    p.out_scales[static_cast<size_t>(group) * p.to_stride + row] = p.scales[static_cast<size_t>(group) * p.from_stride + token];
  }
}

extern "C" __global__ void __launch_bounds__(128) moe_sum(const Sum p) {
  after_former_kernel();
  const uint32_t* rows = p.rows + static_cast<size_t>(blockIdx.x) * p.top_k;
  const float* weights = p.weights + static_cast<size_t>(blockIdx.x) * p.top_k;
  float4* onto = reinterpret_cast<float4*>(p.onto + static_cast<size_t>(blockIdx.x) * p.cols);
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) {
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int slot = 0; slot < p.top_k; slot++) {
      const float4 y = reinterpret_cast<const float4*>(p.y + static_cast<size_t>(rows[slot]) * p.cols)[at];
      const float weight = weights[slot];
      sum.x = __fmaf_rn(weight, y.x, sum.x), sum.y = __fmaf_rn(weight, y.y, sum.y);
      sum.z = __fmaf_rn(weight, y.z, sum.z), sum.w = __fmaf_rn(weight, y.w, sum.w);
    }
    const float4 x = onto[at];
    onto[at] = make_float4(x.x + sum.x, x.y + sum.y, x.z + sum.z, x.w + sum.w);
  }
}
