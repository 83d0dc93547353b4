// How a matmul's tile is laid over its warps, and what becomes of the sums.
//
// Few rows are bound by the weight's bytes. Many rows are bound by how fast operands come, in bf16:
//   block       warps         through L2 at 8192 x 28672 x 4096   through shared memory, an mma m16n8k16
//    64 x  64   4 of 32 x 32  60 GB, 32 flop a byte               256 B read, 128 written: 3 clocks of an SM
//   128 x 128   8 of 64 x 32  30 GB, 64 flop a byte               192 B read,  64 written: 2 clocks
// An mma takes 2 clocks of an A100's tensor cores, 4 of a 4090's, about 1.6 of an H200's without wgmma. So the larger block is level with an A100
// (312 Tflop/s; L2 at 5 TB/s gives 320) and leaves a 4090 half idle; on an H200 L2 at 5.5 TB/s allows 350 Tflop/s and shared memory 470,
// of 610 by mma and 990 by wgmma. Codes of 4 bits take 1.6 clocks, those of FP8 2.5 for an mma of twice the k.
//
// Larger blocks do not fit: sums of a split and of all are 128 of a thread's 255 registers, three stages 96 of the 99 KiB that a block
// has on consumer cards.
#pragma once

#include "gemm_tile.cuh"
#include "row_peaks.cuh"

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
  uint32_t* peaks;     // of a gated unit's rows, where they are few and wanted: row_peaks.cuh
};

// The tile that a block of the grid (outputs, rows) takes. Bands of `BAND` tiles of rows are walked down their columns: the 132 blocks at work on
// an H200 are 8 by 17 tiles, whose operands, 25 MB at a K of 4096, stay in L2. Row by row each wave would read the whole weight.
template <int BAND>
struct Place {
  int row = blockIdx.y, column = blockIdx.x;

  __device__ __forceinline__ Place() {
    if constexpr (BAND > 1) {
      const int block = blockIdx.y * gridDim.x + blockIdx.x, first = block / (BAND * gridDim.x) * BAND;
      const int height = min(BAND, static_cast<int>(gridDim.y) - first), idx = block - first * static_cast<int>(gridDim.x);
      row = first + idx % height, column = idx / height;
    }
  }
};

// A block of TM rows by TN outputs: warps side by side over the outputs, and over the rows where there are 64 or more.
template <int ROWS>
struct Layout {
  static constexpr int TM = ROWS, TN = TM == 128 ? 128 : 64;
  static constexpr int WARPS_M = TM == 16 ? 1 : 2, WARPS_N = TM == 64 ? 2 : 4, THREADS = WARPS_M * WARPS_N * 32;
  // Whether splits of K may have blocks of their own.
  static constexpr bool SHARES = TM < 128;
  static constexpr int MT = TM / WARPS_M / 16, NT = TN / WARPS_N / 8;

  const Place<TM == 128 ? 8 : 1> place;
  int first_row = place.row * TM, first_output = place.column * TN;
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
      uint32_t largest = 0;
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
          const uint32_t units = pack_bf16(a, b);
          *y = units;
          largest = max(largest, pair_magnitude(units));
        }
      }
      if (OUT == Out::Glu && TM == PEAK_ROWS && p.peaks != nullptr) raise_peak(p.peaks, blockIdx.x, y_row, largest);
    }
  }
}
