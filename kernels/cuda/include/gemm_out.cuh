// How a matmul's tile is laid over its warps, and what becomes of the sums.
#pragma once

#include "gemm_tile.cuh"

constexpr int TILE_N = 64;

// What all matmuls take; `w` and `meta` as the weight's kind has them.
struct Gemm {
  const __nv_bfloat16* x;
  const void* w;
  const void* meta;
  const float* bias;  // null where there is none
  void* y;
  int m, n, k;
  int activation;      // of a gated unit: 0 silu, 1 gelu by tanh
  int meta_shift;      // of coded weights whose groups take several stages: gemm_coded.cuh
  int splits;          // of K, and where their sums meet: gemm_pipeline.cuh
  float* partials;     // null where a block takes all splits
  unsigned* arrived;
};

// A block of TM rows by TILE_N outputs: warps side by side over the outputs, and over the rows where there are 64.
template <int TM>
struct Layout {
  static constexpr int WARPS_M = TM == 16 ? 1 : 2, WARPS_N = 4 / WARPS_M;
  static constexpr int MT = TM / WARPS_M / 16, NT = TILE_N / WARPS_N / 8;

  int first_row = blockIdx.y * TM, first_output = blockIdx.x * TILE_N;
  // The warp's, within the block.
  int row = threadIdx.x / 32 / WARPS_N * MT * 16, column = threadIdx.x / 32 % WARPS_N * NT * 8;
};

enum class Out { Store, Add, Glu };

__device__ __forceinline__ float activated(float x, int activation) {
  const float y = activation == 0 ? x : 2.0f * 0.7978845608f * (x + 0.044715f * x * x * x);
  return x / (1.0f + __expf(-y));
}

// Two neighbouring outputs of one row.
template <Out OUT>
__device__ __forceinline__ void put(const Gemm& p, int row, int column, float first, float second) {
  if (row >= p.m) return;
  float* y = static_cast<float*>(p.y) + static_cast<size_t>(row) * p.n;
  const float sums[2] = {first, second};
#pragma unroll
  for (int idx = 0; idx < 2; idx++) {
    const int at = column + idx;
    if (at >= p.n) return;
    const float sum = sums[idx] + (p.bias != nullptr ? p.bias[at] : 0.0f);
    y[at] = OUT == Out::Add ? y[at] + sum : sum;
  }
}

template <Out OUT, int TM>
__device__ __forceinline__ void finish(const Gemm& p, const Layout<TM>& at, const Sums<Layout<TM>::MT, Layout<TM>::NT>& sums) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < Layout<TM>::MT; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int y_row = at.first_row + at.row + m * 16 + half * 8 + lane / 4;
#pragma unroll
      for (int n = 0; n < Layout<TM>::NT; n++) {
        const int y_column = at.first_output + at.column + n * 8 + lane % 4 * 2;
        const float* own = &sums.at[m][n][half * 2];
        if (OUT != Out::Glu) {
          put<OUT>(p, y_row, y_column, own[0], own[1]);
        } else if (n % 2 == 0 && y_row < p.m && y_column < p.n) {
          const float* up = &sums.at[m][n + 1][half * 2];
          const float a = activated(own[0], p.activation) * up[0], b = activated(own[1], p.activation) * up[1];
          const int pair = (at.first_output + at.column + n * 8) / 2 + lane % 4 * 2;
          uint32_t* y = reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(p.y) + static_cast<size_t>(y_row) * (p.n / 2) + pair);
          *y = pack_bf16(a, b);
        }
      }
    }
  }
}
