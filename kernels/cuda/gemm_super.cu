// Matrix products with GGUF's super-blocks of 256 weights, in the file's own bits: y = x W^T.
//
//   x [M, K] bf16, K a multiple of 256, N of 8
//   Q4_K  w     codes, [K / 32, N / 8, 32 lanes] words of 4 bits as gemm_coded.cuh has them
//         meta  [K / 256, N, 16 bytes] of super_blocks.cuh;  w = d * scale * code - dmin * minimum
//   Q6_K  w     low four bits of the codes as above, then [K / 64, N / 8, 32 lanes] words of their upper two: bits 2 i and 2 i + 16 are
//               of pair i of the eight pairs (2t, 2t+1), (2t+8, 2t+9), ...
//         meta  [K / 256, N, 16] signed bytes, then [K / 256, N] f16 d;  w = d * scale * (code - 32), a scale for 16 inputs
//   gemm_q4k_*, gemm_q6k_*: store, add, glu as in gemm_bf16.cu;  experts_q4k_*, experts_q6k_*
//   schedule  scales are multiplied out in f32 as the reference codec does, every 64 inputs anew; they are read once for 256
//   tiling    as gemm_bf16.cu
//   roofline  few rows: N K 4.5 / 8 or 6.5625 / 8 bytes / DRAM bandwidth;  many: 2 M N K flop / bf16 peak
//   in flight at up to 16 rows: 7 stages of 2.25 KiB a block or 5 of 3.3, 1.9 to 3.4 blocks an SM of an H200 at 8B shapes: 30 KiB or more,
//             where 4.8 TB/s through 132 SMs at 0.8 us take 29 KiB
#include "gemm_coded.cuh"
#include "super_blocks.cuh"

constexpr int SUPER = 256, SUPER_SHIFT = 2;  // stages in a super-block, as a power of two

template <class L>
struct Q4K {
  static constexpr int STAGES = L::TM == 16 ? 8 : 4;
  static constexpr int GROUP = 32;
  static constexpr bool HAS_MIN = true;
  static constexpr int CODES = 2 * RUN_WORDS<L> * 4, META = L::TN * 16;

  __device__ static __forceinline__ int meta_shift(const Gemm&) { return SUPER_SHIFT; }

  __device__ static __forceinline__ void load_codes(unsigned char* to, const Gemm& p, int output, int step) {
    load_outputs<L, 16, 2>(to, p.w, step * 2, p.k / 32, output, p.n);
  }

  __device__ static __forceinline__ void load_meta(unsigned char* to, const Gemm& p, int output, int row) {
    load_outputs<L, 16, 1>(to, p.meta, row, p.k / SUPER, output, p.n);
  }

  template <int NT>
  struct Group {
    const uint32_t* codes;
    float2 scales[NT][2];

    __device__ __forceinline__ Group(const unsigned char* stage, const unsigned char* meta, int column, int step, int group) {
      const int lane = threadIdx.x % 32;
      codes = reinterpret_cast<const uint32_t*>(stage) + group * RUN_WORDS<L> + column / 8 * TILE_WORDS + lane;
      const uint32_t* words = reinterpret_cast<const uint32_t*>(meta) + (column + lane % 4 * 2) * 4;
#pragma unroll
      for (int idx = 0; idx < 2 * NT; idx++) {
        scales[idx / 2][idx % 2] = q4k_factors(words + (idx / 2 * 8 + idx % 2) * 4, step % (1 << SUPER_SHIFT), group);
      }
    }

    __device__ __forceinline__ void fragment(int part, int n, uint32_t (&b)[2]) const {
      nibbles(codes[n * TILE_WORDS], part, BIAS_128, b);
    }

    __device__ __forceinline__ float2 factors(int n, int side) const { return scales[n][side]; }
  };
};

template <class L>
struct Q6K {
  static constexpr int STAGES = L::TM == 16 ? 6 : 3;
  static constexpr int GROUP = 16;
  static constexpr bool HAS_MIN = false;
  static constexpr int CODES = 3 * RUN_WORDS<L> * 4, META = L::TN * 18;

  __device__ static __forceinline__ int meta_shift(const Gemm&) { return SUPER_SHIFT; }

  __device__ static __forceinline__ void load_codes(unsigned char* to, const Gemm& p, int output, int step) {
    load_outputs<L, 16, 2>(to, p.w, step * 2, p.k / 32, output, p.n);
    const unsigned char* upper = static_cast<const unsigned char*>(p.w) + static_cast<size_t>(p.n) * p.k / 2;
    load_outputs<L, 16, 1>(to + 2 * RUN_WORDS<L> * 4, upper, step, p.k / 64, output, p.n);
  }

  __device__ static __forceinline__ void load_meta(unsigned char* to, const Gemm& p, int output, int row) {
    load_outputs<L, 16, 1>(to, p.meta, row, p.k / SUPER, output, p.n);
    const unsigned char* halves = static_cast<const unsigned char*>(p.meta) + static_cast<size_t>(p.n) * p.k / 16;
    load_outputs<L, 2, 1>(to + L::TN * 16, halves, row, p.k / SUPER, output, p.n);
  }

  template <int NT>
  struct Group {
    const uint32_t* low;
    const uint32_t* upper;
    float scales[NT][2];
    int group;

    __device__ __forceinline__ Group(const unsigned char* stage, const unsigned char* meta, int column, int step, int group)
        : group(group) {
      const int lane = threadIdx.x % 32, first = column + lane % 4 * 2;
      low = reinterpret_cast<const uint32_t*>(stage) + group / 2 * RUN_WORDS<L> + column / 8 * TILE_WORDS + lane;
      upper = reinterpret_cast<const uint32_t*>(stage) + 2 * RUN_WORDS<L> + column / 8 * TILE_WORDS + lane;
      const signed char* bytes = reinterpret_cast<const signed char*>(meta) + step % (1 << SUPER_SHIFT) * 4 + group;
      const __half2* halves = reinterpret_cast<const __half2*>(meta + L::TN * 16);
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const float2 d = __half22float2(halves[(first + n * 8) / 2]);
        scales[n][0] = d.x * static_cast<float>(bytes[(first + n * 8) * 16]);
        scales[n][1] = d.y * static_cast<float>(bytes[(first + n * 8 + 1) * 16]);
      }
    }

    __device__ __forceinline__ void fragment(int, int n, uint32_t (&b)[2]) const {
      constexpr uint32_t BIAS_160 = 0x43204320u;  // what codes count from, and 32
      const uint32_t word = low[n * TILE_WORDS] >> (group % 2 * 8), bits = upper[n * TILE_WORDS];
#pragma unroll
      for (int idx = 0; idx < 2; idx++) {
        const int at = (group * 2 + idx) * 2;  // of the pair's upper bits, which belong at 4
        const uint32_t moved = at < 4 ? bits << (4 - at) : bits >> (at - 4);
        const uint32_t codes = lop3<AND_OR>(word >> (idx * 4), 0x000f000fu, BIAS_128);
        b[idx] = minus(lop3<AND_OR>(moved, 0x00300030u, codes), BIAS_160);
      }
    }

    __device__ __forceinline__ float2 factors(int n, int side) const { return make_float2(scales[n][side], 0.0f); }
  };
};

#define GEMMS(D)                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_q4k_store_##D(const Gemm p) { coded<Q4K, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_q4k_add_##D(const Gemm p) { coded<Q4K, D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_q4k_glu_##D(const Gemm p) { coded<Q4K, D, Out::Glu>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_q6k_store_##D(const Gemm p) { coded<Q6K, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_q6k_add_##D(const Gemm p) { coded<Q6K, D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_q6k_glu_##D(const Gemm p) { coded<Q6K, D, Out::Glu>(p); }

#define EXPERTS(D)                                                                                                                             \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_q4k_store_##D(const Experts p) { coded<Q4K, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_q4k_glu_##D(const Experts p) { coded<Q4K, D, Out::Glu>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_q6k_store_##D(const Experts p) { coded<Q6K, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_q6k_glu_##D(const Experts p) { coded<Q6K, D, Out::Glu>(p); }

GEMMS(16)
GEMMS(64)
GEMMS(128)
EXPERTS(16)
EXPERTS(64)
