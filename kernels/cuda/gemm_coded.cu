// Matrix products with weights of 4 or 8 bits: y = x W^T, w = scale * code + minimum, one of each for 32 inputs.
//
//   x [M, K] bf16, K a multiple of 32, N of 8
//   w     codes as a tensor core's fragments want them, [K / (4 bits: 32, 8 bits: 16), N / 8, 32 lanes] words:
//         4 bits  lane (n, t) has the k of its pairs (2t, 2t+1), (2t+8, 2t+9), (2t+16, ..), (2t+24, ..): nibble i and i + 4 are pair i
//         8 bits  bytes 0 and 2 are pair (2t, 2t+1), bytes 1 and 3 pair (2t+8, 2t+9), signed
//   meta  [K / 32, N] f16 scale and minimum
//   gemm_w4_*, gemm_w8_*: store, add, glu as in gemm_bf16.cu
//   schedule  codes are exact in bf16: a group's products are summed by the tensor core, then scaled in f32; a minimum times the sum of
//             the group's inputs, which a fragment of ones gives
//   tiling    as gemm_bf16.cu
//   roofline  few rows: N K (bits + 1) / 8 bytes / DRAM bandwidth;  many: 2 M N K flop / bf16 peak
#include "gemm_out.cuh"

constexpr int GROUP = 32;
constexpr int GROUPS = TILE_K / GROUP;

// Sizes of one stage: TILE_K inputs of TILE_N outputs.
template <int BITS>
struct Stage {
  static constexpr int WORDS = TILE_N * TILE_K * BITS / 32;          // of codes
  static constexpr int ROW_WORDS = TILE_N / 8 * 32;                  // of codes that lie side by side in memory
  static constexpr int ROWS = WORDS / ROW_WORDS;                     // of those
  static constexpr int META_BYTES = GROUPS * TILE_N * 4, BYTES = WORDS * 4 + META_BYTES;
};

// Asks for a stage's codes and scales; zeros beyond the matrix.
template <int BITS>
__device__ __forceinline__ void load_codes(const Gemm& p, unsigned char* stage, int first_output, int step) {
  using S = Stage<BITS>;
  const uint32_t* codes = static_cast<const uint32_t*>(p.w);
  const uint32_t* meta = static_cast<const uint32_t*>(p.meta);
  for (int at = threadIdx.x; at < S::WORDS / 4; at += GEMM_THREADS) {
    const int row = at / (S::ROW_WORDS / 4), word = at % (S::ROW_WORDS / 4) * 4;
    const int k_row = step * S::ROWS + row, tile = first_output / 8 + word / 32;
    const bool inside = k_row * (TILE_K / S::ROWS) < p.k && tile * 8 < p.n;
    const size_t from = (static_cast<size_t>(k_row) * (p.n / 8) + tile) * 32 + word % 32;
    cp_async16(stage + at * 16, inside ? codes + from : codes, inside);
  }
  for (int at = threadIdx.x; at < GROUPS * TILE_N / 4; at += GEMM_THREADS) {
    const int group = step * GROUPS + at / (TILE_N / 4), output = first_output + at % (TILE_N / 4) * 4;
    const bool inside = group * GROUP < p.k && output < p.n;
    cp_async16(stage + S::WORDS * 4 + at * 16, inside ? meta + static_cast<size_t>(group) * p.n + output : meta, inside);
  }
}

// Two codes as bf16: with 0x43 above, the low seven bits of a half are 128 + their value.
__device__ __forceinline__ uint32_t minus(uint32_t a, uint32_t b) {
  return bit_cast_<uint32_t>(__hsub2(bit_cast_<__nv_bfloat162>(a), bit_cast_<__nv_bfloat162>(b)));
}

constexpr uint32_t BIAS_128 = 0x43004300u;
constexpr int AND_OR = (0xf0 & 0xcc) | 0xaa;  // of lop3: (a & b) | c

// The fragment of k step `step` of a group, for one tile of 8 outputs.
template <int BITS>
__device__ __forceinline__ void fragment(const uint32_t* codes, int step, uint32_t (&b)[2]) {
  if constexpr (BITS == 4) {
    const uint32_t word = codes[0] >> (step * 8);
    b[0] = minus(lop3<AND_OR>(word, 0x000f000fu, BIAS_128), BIAS_128);
    b[1] = minus(lop3<AND_OR>(word >> 4, 0x000f000fu, BIAS_128), BIAS_128);
  } else {
    const uint32_t word = codes[step * Stage<8>::ROW_WORDS];
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      const uint32_t bytes = word >> (pair * 8);
      // Two's complement: the low seven bits, less 128 where the eighth is set; 0x4380 is 256.
      b[pair] = minus(lop3<AND_OR>(bytes, 0x007f007fu, BIAS_128), lop3<AND_OR>(bytes, 0x00800080u, BIAS_128));
    }
  }
}

// Adds one stage's products.
template <int BITS, int TM>
__device__ __forceinline__ void multiply_codes(Sums<Layout<TM>::MT, Layout<TM>::NT>& sums, const Layout<TM>& at,
                                               const unsigned char* x, const unsigned char* stage) {
  constexpr int MT = Layout<TM>::MT, NT = Layout<TM>::NT;
  const int lane = threadIdx.x % 32;
  const uint32_t* codes = reinterpret_cast<const uint32_t*>(stage) + at.column / 8 * 32 + lane;
  const uint32_t* meta = reinterpret_cast<const uint32_t*>(stage + Stage<BITS>::WORDS * 4) + at.column + lane % 4 * 2;
  const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};
#pragma unroll
  for (int group = 0; group < GROUPS; group++) {
    float dots[MT][NT][4] = {}, inputs[MT][4] = {};
#pragma unroll
    for (int step = 0; step < GROUP / 16; step++) {
      uint32_t a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) {
        ldmatrix_x4(a[m], x + swizzled(at.row + m * 16 + lane % 16, (group * 2 + step) * 2 + lane / 16));
        mma_m16n8k16_bf16(inputs[m], a[m], ones);
      }
#pragma unroll
      for (int n = 0; n < NT; n++) {
        uint32_t b[2];
        fragment<BITS>(codes + group * Stage<BITS>::ROWS / GROUPS * Stage<BITS>::ROW_WORDS + n * 32, step, b);
#pragma unroll
        for (int m = 0; m < MT; m++) mma_m16n8k16_bf16(dots[m][n], a[m], b);
      }
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
      for (int side = 0; side < 2; side++) {
        const __half2 pair = bit_cast_<__half2>(meta[group * TILE_N + n * 8 + side]);
        const float scale = __half2float(pair.x), min = __half2float(pair.y);
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
          for (int idx = side; idx < 4; idx += 2) {
            sums.at[m][n][idx] = __fmaf_rn(dots[m][n][idx], scale, sums.at[m][n][idx]);
            sums.at[m][n][idx] = __fmaf_rn(min, inputs[m][idx], sums.at[m][n][idx]);
          }
        }
      }
    }
  }
}

template <int BITS, int TM, Out OUT>
__device__ __forceinline__ void gemm(const Gemm& p) {
  constexpr int X_BYTES = TM * TILE_K * 2, STAGE_BYTES = X_BYTES + Stage<BITS>::BYTES;
  DYN_SMEM(ring);
  const Layout<TM> at;
  const int steps = (p.k + TILE_K - 1) / TILE_K;
  auto load = [&](int step) {
    unsigned char* stage = ring + step % STAGES * STAGE_BYTES;
    if (step < steps) {
      load_tile<TM>(stage, p.x, at.first_row, p.m, step * TILE_K, p.k);
      load_codes<BITS>(p, stage + X_BYTES, at.first_output, step);
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
    multiply_codes<BITS>(sums, at, stage, stage + X_BYTES);
  }
  cp_async_wait<0>();
  finish<OUT>(p, at, sums);
}


extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w4_store_16(const Gemm p) { gemm<4, 16, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w4_store_64(const Gemm p) { gemm<4, 64, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w4_add_16(const Gemm p) { gemm<4, 16, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w4_add_64(const Gemm p) { gemm<4, 64, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w4_glu_16(const Gemm p) { gemm<4, 16, Out::Glu>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w4_glu_64(const Gemm p) { gemm<4, 64, Out::Glu>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w8_store_16(const Gemm p) { gemm<8, 16, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w8_store_64(const Gemm p) { gemm<8, 64, Out::Store>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w8_add_16(const Gemm p) { gemm<8, 16, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w8_add_64(const Gemm p) { gemm<8, 64, Out::Add>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w8_glu_16(const Gemm p) { gemm<8, 16, Out::Glu>(p); }
extern "C" __global__ void __launch_bounds__(GEMM_THREADS) gemm_w8_glu_64(const Gemm p) { gemm<8, 64, Out::Glu>(p); }
