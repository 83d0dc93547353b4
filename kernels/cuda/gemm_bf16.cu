// Matrix products with bf16 weights: y = x W^T.
//
//   x [M, K] bf16, w [N, K] bf16, K a multiple of 8
//   gemm_store_*  y [M, N] f32 = x W^T (+ bias)
//   gemm_add_*    y [M, N] f32 += x W^T (+ bias): the residual stream
//   gemm_glu_*    y [M, N / 2] bf16 = f(gate) * up, where the weight's rows alternate eight of gate and eight of up
//   tiling    blocks of 16 or 64 rows by 64 outputs, four warps; *_16 for up to 16 rows, where weights are what is read
//   roofline  few rows: 2 N K bytes / DRAM bandwidth;  many: 2 M N K flop / bf16 peak
#include "gemm_tile.cuh"

constexpr int TILE_N = 64;

struct Gemm {
  const __nv_bfloat16* x;
  const __nv_bfloat16* w;
  const float* bias;  // null where there is none
  void* y;
  int m, n, k;
  int activation;  // of a gated unit: 0 silu, 1 gelu by tanh
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

// One block: TM rows by TILE_N outputs; warps side by side over the outputs, and over the rows where there are 64.
template <int TM, Out OUT>
__device__ __forceinline__ void gemm(const Gemm& p) {
  constexpr int WARPS_M = TM == 16 ? 1 : 2, WARPS_N = 4 / WARPS_M;
  constexpr int MT = TM / WARPS_M / 16, NT = TILE_N / WARPS_N / 8;
  constexpr int X_BYTES = TM * TILE_K * 2, STAGE_BYTES = X_BYTES + TILE_N * TILE_K * 2;
  DYN_SMEM(ring);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_row = blockIdx.y * TM, first_output = blockIdx.x * TILE_N;
  const int row = warp / WARPS_N * MT * 16, column = warp % WARPS_N * NT * 8;
  const int steps = (p.k + TILE_K - 1) / TILE_K;
  auto load = [&](int step) {
    unsigned char* stage = ring + step % STAGES * STAGE_BYTES;
    if (step < steps) {
      load_tile<TM>(stage, p.x, first_row, p.m, step * TILE_K, p.k);
      load_tile<TILE_N>(stage + X_BYTES, p.w, first_output, p.n, step * TILE_K, p.k);
    }
    cp_async_commit();
  };
  for (int step = 0; step < STAGES - 1; step++) load(step);
  Sums<MT, NT> sums;
  for (int step = 0; step < steps; step++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    load(step + STAGES - 1);
    const unsigned char* stage = ring + step % STAGES * STAGE_BYTES;
    multiply_stage(sums, stage, stage + X_BYTES, row, column);
  }
  cp_async_wait<0>();
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int y_row = first_row + row + m * 16 + half * 8 + lane / 4;
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const int y_column = first_output + column + n * 8 + lane % 4 * 2;
        const float* own = &sums.at[m][n][half * 2];
        if (OUT != Out::Glu) {
          put<OUT>(p, y_row, y_column, own[0], own[1]);
        } else if (n % 2 == 0 && y_row < p.m && y_column < p.n) {
          const float* up = &sums.at[m][n + 1][half * 2];
          const float a = activated(own[0], p.activation) * up[0], b = activated(own[1], p.activation) * up[1];
          const int pair = (first_output + column + n * 8) / 2 + lane % 4 * 2;
          uint32_t* y = reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(p.y) + static_cast<size_t>(y_row) * (p.n / 2) + pair);
          *y = pack_bf16(a, b);
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_store_16(const Gemm p) { gemm<16, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_store_64(const Gemm p) { gemm<64, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_add_16(const Gemm p) { gemm<16, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_add_64(const Gemm p) { gemm<64, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_glu_16(const Gemm p) { gemm<16, Out::Glu>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_glu_64(const Gemm p) { gemm<64, Out::Glu>(p); }
