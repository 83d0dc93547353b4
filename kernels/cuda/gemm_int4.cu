// Matrix products with INT4 weights of checkpoints (W4A16): y = x W^T, w = scale * (code - zero).
//
//   x [M, K] bf16, K a multiple of 32, N of 8; where the checkpoint grouped its columns in another order, permute.cu brings x into it
//   w     codes, [K / 32, N / 8, 32 lanes] words of 4 bits as gemm_coded.cuh has them, columns in the order of their groups
//   meta  [ceil(K / group), N] words, once a group and output: the scale as f32, whose low four bits hold the zero. A scale that was f16
//         or bf16 has zeros there and is exact; another is rounded to 20 bits.
//   gemm_int4_32_*  groups of 32;  gemm_int4_64_*  of 64 << p.meta_shift;  store, add, glu as in gemm_bf16.cu;  experts_int4_*
//   schedule  a code less its zero is an integer, exact in bf16: 32 or 64 inputs are summed by the tensor core, then scaled in f32
//   tiling    as gemm_bf16.cu
//   roofline  few rows: N K (4 + 32 / group) / 8 bytes / DRAM bandwidth;  many: 2 M N K flop / bf16 peak
//   in flight at up to 16 rows: 7 stages of 2 KiB of codes a block and 1.9 to 3.4 blocks an SM of an H200 at 8B shapes: 27 to 48 KiB, where
//             4.8 TB/s through 132 SMs at 0.8 us take 29 KiB
#include "gemm_coded.cuh"

template <int SUMMED, class L>
struct Int4 {
  static constexpr int STAGES = L::TM == 16 ? 8 : 4;
  static constexpr int GROUP = SUMMED;
  static constexpr bool HAS_MIN = false;
  static constexpr int ROWS = TILE_K / 32, META_ROWS = TILE_K / SUMMED;
  static constexpr int CODES = ROWS * RUN_WORDS<L> * 4, META = META_ROWS * L::TN * 4;

  __device__ static __forceinline__ int meta_shift(const Gemm& p) { return SUMMED == TILE_K ? p.meta_shift : 0; }

  __device__ static __forceinline__ void load_codes(unsigned char* to, const Gemm& p, int output, int step) {
    load_outputs<L, 16, ROWS>(to, p.w, step * ROWS, p.k / 32, output, p.n);
  }

  __device__ static __forceinline__ void load_meta(unsigned char* to, const Gemm& p, int output, int row) {
    const int group = SUMMED << meta_shift(p);
    load_outputs<L, 4, META_ROWS>(to, p.meta, row * META_ROWS, (p.k + group - 1) / group, output, p.n);
  }

  template <int NT>
  struct Group {
    const uint32_t* codes;
    const uint32_t* meta;
    uint32_t bias[NT];

    __device__ __forceinline__ Group(const unsigned char* stage, const unsigned char* scales, int column, int, int group) {
      const int lane = threadIdx.x % 32;
      codes = reinterpret_cast<const uint32_t*>(stage) + group * (SUMMED / 32) * RUN_WORDS<L> + column / 8 * TILE_WORDS + lane;
      meta = reinterpret_cast<const uint32_t*>(scales) + group * L::TN + column;
#pragma unroll
      for (int n = 0; n < NT; n++) bias[n] = BIAS_128 + (meta[n * 8 + lane / 4] & 15u) * 0x00010001u;
      meta += lane % 4 * 2;
    }

    __device__ __forceinline__ void fragment(int part, int n, uint32_t (&b)[2]) const {
      nibbles(codes[part / 2 * RUN_WORDS<L> + n * TILE_WORDS], part % 2, bias[n], b);
    }

    __device__ __forceinline__ float2 factors(int n, int side) const {
      return make_float2(__uint_as_float(meta[n * 8 + side] & ~15u), 0.0f);
    }
  };
};

template <class L>
using Int4By32 = Int4<32, L>;
template <class L>
using Int4By64 = Int4<64, L>;

#define GEMMS(D)                                                                                                                               \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_int4_32_store_##D(const Gemm p) { coded<Int4By32, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_int4_32_add_##D(const Gemm p) { coded<Int4By32, D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_int4_32_glu_##D(const Gemm p) { coded<Int4By32, D, Out::Glu>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_int4_64_store_##D(const Gemm p) { coded<Int4By64, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_int4_64_add_##D(const Gemm p) { coded<Int4By64, D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_int4_64_glu_##D(const Gemm p) { coded<Int4By64, D, Out::Glu>(p); }

#define EXPERTS(D)                                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_int4_32_store_##D(const Experts p) { coded<Int4By32, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_int4_32_glu_##D(const Experts p) { coded<Int4By32, D, Out::Glu>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_int4_64_store_##D(const Experts p) { coded<Int4By64, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_int4_64_glu_##D(const Experts p) { coded<Int4By64, D, Out::Glu>(p); }

GEMMS(16)
GEMMS(64)
GEMMS(128)
EXPERTS(16)
EXPERTS(64)
