// Matrix products with bf16 weights: y = x W^T.
//
//   x [M, K] bf16, w [N, K] bf16, K a multiple of 8
//   gemm_store_*  y [M, N] f32 = x W^T (+ bias)
//   gemm_add_*    y [M, N] f32 += x W^T (+ bias): the residual stream
//   gemm_glu_*    y [M, N / 2] bf16 = f(gate) * up, where the weight's rows alternate eight of gate and eight of up
//   tiling    blocks of 16 or 64 rows by 64 outputs, four warps; *_16 for up to 16 rows, where weights are what is read
//   roofline  few rows: 2 N K bytes / DRAM bandwidth;  many: 2 M N K flop / bf16 peak
#include "gemm_out.cuh"

template <int TM, Out OUT>
__device__ __forceinline__ void gemm(const Gemm& p) {
  constexpr int X_BYTES = TM * TILE_K * 2, STAGE_BYTES = X_BYTES + TILE_N * TILE_K * 2;
  DYN_SMEM(ring);
  const Layout<TM> at;
  const __nv_bfloat16* w = static_cast<const __nv_bfloat16*>(p.w);
  const int steps = (p.k + TILE_K - 1) / TILE_K;
  auto load = [&](int step) {
    unsigned char* stage = ring + step % STAGES * STAGE_BYTES;
    if (step < steps) {
      load_tile<TM>(stage, p.x, at.first_row, p.m, step * TILE_K, p.k);
      load_tile<TILE_N>(stage + X_BYTES, w, at.first_output, p.n, step * TILE_K, p.k);
    }
    cp_async_commit();
  };
  for (int step = 0; step < STAGES - 1; step++) load(step);
  Sums<Layout<TM>::MT, Layout<TM>::NT> sums;
  for (int step = 0; step < steps; step++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    load(step + STAGES - 1);
    const unsigned char* stage = ring + step % STAGES * STAGE_BYTES;
    multiply_stage(sums, stage, stage + X_BYTES, at.row, at.column);
  }
  cp_async_wait<0>();
  finish<OUT>(p, at, sums);
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_store_16(const Gemm p) { gemm<16, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_store_64(const Gemm p) { gemm<64, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_add_16(const Gemm p) { gemm<16, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_add_64(const Gemm p) { gemm<64, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_glu_16(const Gemm p) { gemm<16, Out::Glu>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_glu_64(const Gemm p) { gemm<64, Out::Glu>(p); }
