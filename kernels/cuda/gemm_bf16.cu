// Matrix products with bf16 weights: y = x W^T.
//
//   x [M, K] bf16, w [N, K] bf16, K a multiple of 8
//   gemm_bf16_store_*  y [M, N] f32 = x W^T (+ bias)
//   gemm_bf16_add_*    y [M, N] f32 += x W^T (+ bias): the residual stream
//   gemm_bf16_glu_*    y [M, N / 2] bf16 = f(gate) * up, where the weight's rows alternate eight of gate and eight of up
//   experts_bf16_*     store and glu of a stack of experts
//   tiling    *_16, *_64: blocks of as many rows by 64 outputs, four warps; *_16 for up to 16 rows, where weights are what is read
//             *_128: 128 rows by 128 outputs, eight warps, where there are such tiles for all SMs; gemm_out.cuh has what that gives. Not of
//             experts, whose rows are few
//   roofline  few rows: 2 N K bytes / DRAM bandwidth;  many: 2 M N K flop / bf16 peak
//   in flight at up to 16 rows: 3 stages of 8 KiB of weights a block, and 1.9 to 3.4 blocks an SM of an H200 at 8B shapes (gemm.rs): 46 to
//             80 KiB, where 4.8 TB/s through 132 SMs at 0.8 us take 29 KiB
#include "experts.cuh"
#include "gemm_pipeline.cuh"

template <int ROWS>
struct Dense : AsGiven {
  using L = Layout<ROWS>;
  static constexpr int TM = ROWS, STAGES = TM == 16 ? 4 : 3;
  static constexpr int X_BYTES = TM * TILE_K * 2, STAGE_BYTES = X_BYTES + L::TN * TILE_K * 2;

  const Gemm& p;
  unsigned char* ring;
  const L at;
  const int steps;

  __device__ __forceinline__ Dense(const Gemm& p, unsigned char* ring) : p(p), ring(ring), steps((p.k + TILE_K - 1) / TILE_K) {}

  __device__ __forceinline__ void load_x(int slot, int step) {
    load_tile<TM, L::THREADS>(ring + slot * STAGE_BYTES, p.x, at.first_row, p.m, step * TILE_K, p.k);
  }

  __device__ __forceinline__ void load_w(int slot, int step, bool) {
    unsigned char* stage = ring + slot * STAGE_BYTES + X_BYTES;
    load_tile<L::TN, L::THREADS>(stage, static_cast<const __nv_bfloat16*>(p.w), at.first_output, p.n, step * TILE_K, p.k);
  }

  template <int MT, int NT>
  __device__ __forceinline__ void multiply(Sums<MT, NT>& sums, int slot, int) {
    const unsigned char* stage = ring + slot * STAGE_BYTES;
    multiply_stage(sums, stage, stage + X_BYTES, at.row, at.column);
  }
};

template <int TM, Out OUT>
__device__ __forceinline__ void dense(const Gemm& p) {
  DYN_SMEM(ring);
  Dense<TM> work(p, ring);
  gemm<OUT>(p, work, ring);
}

template <int TM, Out OUT>
__device__ __forceinline__ void dense(const Experts& p) {
  Gemm own;
  if (choose_expert(p, own)) dense<TM, OUT>(own);
}

#define GEMMS(D)                                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, D == 128 ? 1 : 4) gemm_bf16_store_##D(const Gemm p) { dense<D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, D == 128 ? 1 : 4) gemm_bf16_add_##D(const Gemm p) { dense<D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, D == 128 ? 1 : 4) gemm_bf16_glu_##D(const Gemm p) { dense<D, Out::Glu>(p); }

#define EXPERTS(D)                                                                                                                         \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 4) experts_bf16_store_##D(const Experts p) { dense<D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 4) experts_bf16_glu_##D(const Experts p) { dense<D, Out::Glu>(p); }

GEMMS(16)
GEMMS(64)
GEMMS(128)
EXPERTS(16)
EXPERTS(64)
