// A row of activations as e4m3 codes, and its scales.
#pragma once

#include "e4m3.cuh"

constexpr int E4M3_GROUP = 128;

// codes [T, cols]; scales [T], or where `stride` is not 0 one a group of 128 columns, [cols / 128, stride].
struct E4m3Rows {
  unsigned char* codes;
  float* scales;
  int stride;
};

// Writes the block's row: `value(at)` is columns 4 at to 4 at + 3, `row_max()`, which all threads call, its largest magnitude. A warp's
// four times 32 columns are a group.
template <class Value, class RowMax>
__device__ __forceinline__ void write_e4m3(const E4m3Rows& to, int cols, const Value& value, const RowMax& row_max) {
  uint32_t* codes = reinterpret_cast<uint32_t*>(to.codes + static_cast<size_t>(blockIdx.x) * cols);
  if (to.stride == 0) {
    const Divisor by(e4m3_scale(row_max()));
    for (int at = threadIdx.x; at < cols / 4; at += blockDim.x) codes[at] = pack_e4m3(value(at), by);
    if (threadIdx.x == 0) to.scales[blockIdx.x] = by.scale;
    return;
  }
  for (int group = threadIdx.x / 32; group * E4M3_GROUP < cols; group += blockDim.x / 32) {
    const int at = group * 32 + threadIdx.x % 32;
    const bool inside = at < cols / 4;
    const float4 v = inside ? value(at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const Divisor by(e4m3_scale(__uint_as_float(warp_max(magnitude(v)))));
    if (inside) codes[at] = pack_e4m3(v, by);
    if (threadIdx.x % 32 == 0) to.scales[static_cast<size_t>(group) * to.stride + blockIdx.x] = by.scale;
  }
}
