// Rows by index: embeddings, and the rows whose logits are wanted.
//
//   embed_rows   ids [T], table [V, cols] bf16  ->  out [T, cols] f32 = table[ids] * scale
//   embed_w4, embed_w8   the same of a table as gemm_coded.cu packs it, embed_q4k, embed_q6k as gemm_super.cu
//   gather_rows  ids [R], x [T, cols] f32       ->  out [R, cols] f32 = x[ids]
//   tiling    one block a row;  cols a multiple of 4
//   roofline  bytes read and written / DRAM bandwidth
#include "super_blocks.cuh"
#include "vectors.cuh"

struct Rows {
  const uint32_t* ids;
  const void* from;
  const void* meta;  // of coded tables
  float* out;
  int cols, num_rows;
  float scale;  // of embeddings
};

__device__ __forceinline__ float4* target(const Rows& p) {
  return reinterpret_cast<float4*>(p.out + static_cast<size_t>(blockIdx.x) * p.cols);
}

extern "C" __global__ void __launch_bounds__(128) embed_rows(const Rows p) {
  after_former_kernel();
  const __nv_bfloat16* table = static_cast<const __nv_bfloat16*>(p.from);
  const uint2* row = reinterpret_cast<const uint2*>(table + static_cast<size_t>(p.ids[blockIdx.x]) * p.cols);
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) {
    const float4 v = unpack_bf16(row[at].x, row[at].y);
    target(p)[at] = make_float4(v.x * p.scale, v.y * p.scale, v.z * p.scale, v.w * p.scale);
  }
}

// The table's codes lie as fragments: of row n, lane n % 8 * 4 + t of a tile has those of columns 2t, 2t + 1, 2t + 8, ...
template <int BITS>
__device__ __forceinline__ void embed_codes(const Rows& p) {
  after_former_kernel();
  constexpr int COLUMNS = 128 / BITS;  // that the four words of a row in one tile hold
  const uint32_t row = p.ids[blockIdx.x];
  const uint32_t* codes = static_cast<const uint32_t*>(p.from);
  const __half2* meta = static_cast<const __half2*>(p.meta);
  float* out = p.out + static_cast<size_t>(blockIdx.x) * p.cols;
  for (int at = threadIdx.x; at < p.cols / COLUMNS * 4; at += blockDim.x) {
    const int tile = at / 4, t = at % 4;
    const uint32_t word = codes[(static_cast<size_t>(tile) * (p.num_rows / 8) + row / 8) * 32 + row % 8 * 4 + t];
    const __half2 pair = meta[static_cast<size_t>(tile * COLUMNS / 32) * p.num_rows + row];
    const float scale = __half2float(pair.x), min = __half2float(pair.y);
#pragma unroll
    for (int idx = 0; idx < 32 / BITS; idx++) {
      const int column = tile * COLUMNS + idx / 2 * 8 + t * 2 + idx % 2;
      const int code = BITS == 4 ? word >> (idx / 2 * 4 + idx % 2 * 16) & 15
                                 : static_cast<int8_t>(word >> (idx / 2 * 8 + idx % 2 * 16));
      out[column] = (scale * code + min) * p.scale;
    }
  }
}

extern "C" __global__ void __launch_bounds__(128) embed_w4(const Rows p) { embed_codes<4>(p); }
extern "C" __global__ void __launch_bounds__(128) embed_w8(const Rows p) { embed_codes<8>(p); }

// Calls `each` with the words of nibbles of a table's row: the tile of 32 columns, the lane of its four, and where the tile's words start.
template <class Each>
__device__ __forceinline__ void each_nibbles(const Rows& p, Each each) {
  const uint32_t row = p.ids[blockIdx.x];
  for (int at = threadIdx.x; at < p.cols / 32 * 4; at += blockDim.x) {
    const size_t word = (static_cast<size_t>(at / 4) * (p.num_rows / 8) + row / 8) * 32 + row % 8 * 4 + at % 4;
    each(at / 4, at % 4, static_cast<const uint32_t*>(p.from)[word]);
  }
}

extern "C" __global__ void __launch_bounds__(128) embed_q4k(const Rows p) {
  after_former_kernel();
  float* out = p.out + static_cast<size_t>(blockIdx.x) * p.cols;
  each_nibbles(p, [&](int tile, int t, uint32_t word) {
    const size_t block = static_cast<size_t>(tile / 8) * p.num_rows + p.ids[blockIdx.x];
    const float2 factors = q4k_factors(static_cast<const uint32_t*>(p.meta) + block * 4, tile % 8 / 2, tile % 2);
#pragma unroll
    for (int idx = 0; idx < 8; idx++) {
      const float code = static_cast<float>(word >> (idx / 2 * 4 + idx % 2 * 16) & 15u);
      out[tile * 32 + idx / 2 * 8 + t * 2 + idx % 2] = (factors.x * code + factors.y) * p.scale;
    }
  });
}

extern "C" __global__ void __launch_bounds__(128) embed_q6k(const Rows p) {
  after_former_kernel();
  const uint32_t row = p.ids[blockIdx.x];
  const size_t table = static_cast<size_t>(p.num_rows) * p.cols;
  const uint32_t* upper = static_cast<const uint32_t*>(p.from) + table / 8;
  const __half* halves = static_cast<const __half*>(p.meta) + table / 32;
  float* out = p.out + static_cast<size_t>(blockIdx.x) * p.cols;
  each_nibbles(p, [&](int tile, int t, uint32_t word) {
    const uint32_t bits = upper[(static_cast<size_t>(tile / 2) * (p.num_rows / 8) + row / 8) * 32 + row % 8 * 4 + t];
    const size_t block = static_cast<size_t>(tile / 8) * p.num_rows + row;
    const signed char* scales = static_cast<const signed char*>(p.meta) + block * 16 + tile % 8 * 2;
#pragma unroll
    for (int idx = 0; idx < 8; idx++) {
      const float scale = __half2float(halves[block]) * static_cast<float>(scales[idx / 4]);
      const uint32_t low = word >> (idx / 2 * 4 + idx % 2 * 16) & 15u;
      const uint32_t high = bits >> (tile % 2 * 8 + idx / 2 * 2 + idx % 2 * 16) & 3u;
      const float code = static_cast<float>(static_cast<int>(low | high << 4) - 32);
      out[tile * 32 + idx / 2 * 8 + t * 2 + idx % 2] = scale * code * p.scale;
    }
  });
}

extern "C" __global__ void __launch_bounds__(128) gather_rows(const Rows p) {
  after_former_kernel();
  const float* x = static_cast<const float*>(p.from);
  const float4* row = reinterpret_cast<const float4*>(x + static_cast<size_t>(p.ids[blockIdx.x]) * p.cols);
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) target(p)[at] = row[at];
}
