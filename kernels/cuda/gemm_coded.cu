// Matrix products with GGUF's blocks of 32 weights of 4, 5 and 8 bits: y = x W^T, w = scale * code + minimum.
//
//   x [M, K] bf16, K a multiple of 32, N of 8
//   w     codes, [K / 32, N / 8, 32 lanes] words of 4 bits as gemm_coded.cuh has them, or
//         [K / 16, N / 8, 32 lanes] words of 8 bits: bytes 0 and 2 are pair (2t, 2t+1), bytes 1 and 3 pair (2t+8, 2t+9), signed
//   meta  [K / 32, N] f16 scale and minimum
//   gemm_w4_*, gemm_w8_*: store, add, glu as in gemm_bf16.cu;  experts_w4_*, experts_w8_*: store and glu of a stack of experts
//   tiling    as gemm_bf16.cu
//   roofline  few rows: N K (bits + 1) / 8 bytes / DRAM bandwidth;  many: 2 M N K flop / bf16 peak
//   in flight at up to 16 rows: 7 stages of 2.5 KiB of weights or 5 of 4.5 a block, 1.9 to 3.4 blocks an SM of an H200 at 8B shapes: 34 KiB
//             or more, where 4.8 TB/s through 132 SMs at 0.8 us take 29 KiB
#include "gemm_coded.cuh"

template <int BITS, class L>
struct Blocks {
  static constexpr int STAGES = L::TM == 16 ? (BITS == 4 ? 8 : 6) : (BITS == 4 ? 4 : 3);
  static constexpr int GROUP = 32;
  static constexpr bool HAS_MIN = true;
  static constexpr int ROWS = TILE_K * BITS / 128;  // of words, a stage
  static constexpr int CODES = ROWS * RUN_WORDS<L> * 4, META = TILE_K / GROUP * L::TN * 4;

  __device__ static int meta_shift(const Gemm&) { return 0; }

  __device__ static __forceinline__ void load_codes(unsigned char* to, const Gemm& p, int output, int step) {
    load_outputs<L, 16, ROWS>(to, p.w, step * ROWS, p.k * BITS / 128, output, p.n);
  }

  __device__ static __forceinline__ void load_meta(unsigned char* to, const Gemm& p, int output, int row) {
    load_outputs<L, 4, TILE_K / GROUP>(to, p.meta, row * (TILE_K / GROUP), p.k / GROUP, output, p.n);
  }

  template <int NT>
  struct Group {
    const uint32_t* codes;
    const uint32_t* meta;

    __device__ __forceinline__ Group(const unsigned char* stage, const unsigned char* scales, int column, int, int group) {
      const int lane = threadIdx.x % 32;
      codes = reinterpret_cast<const uint32_t*>(stage) + group * (ROWS / 2) * RUN_WORDS<L> + column / 8 * TILE_WORDS + lane;
      meta = reinterpret_cast<const uint32_t*>(scales) + group * L::TN + column + lane % 4 * 2;
    }

    __device__ __forceinline__ void fragment(int part, int n, uint32_t (&b)[2]) const {
      if constexpr (BITS == 4) {
        nibbles(codes[n * TILE_WORDS], part, BIAS_128, b);
      } else {
        const uint32_t word = codes[part * RUN_WORDS<L> + n * TILE_WORDS];
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
          const uint32_t bytes = word >> (pair * 8);
          // Two's complement: the low seven bits, less 128 where the eighth is set; 0x4380 is 256.
          b[pair] = minus(lop3<AND_OR>(bytes, 0x007f007fu, BIAS_128), lop3<AND_OR>(bytes, 0x00800080u, BIAS_128));
        }
      }
    }

    __device__ __forceinline__ float2 factors(int n, int side) const {
      return __half22float2(bit_cast_<__half2>(meta[n * 8 + side]));
    }
  };
};

template <class L>
using W4 = Blocks<4, L>;
template <class L>
using W8 = Blocks<8, L>;

#define GEMMS(D)                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_w4_store_##D(const Gemm p) { coded<W4, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_w4_add_##D(const Gemm p) { coded<W4, D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_w4_glu_##D(const Gemm p) { coded<W4, D, Out::Glu>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_w8_store_##D(const Gemm p) { coded<W8, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_w8_add_##D(const Gemm p) { coded<W8, D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_w8_glu_##D(const Gemm p) { coded<W8, D, Out::Glu>(p); }

#define EXPERTS(D)                                                                                                                           \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_w4_store_##D(const Experts p) { coded<W4, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_w4_glu_##D(const Experts p) { coded<W4, D, Out::Glu>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_w8_store_##D(const Experts p) { coded<W8, D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_w8_glu_##D(const Experts p) { coded<W8, D, Out::Glu>(p); }

GEMMS(16)
GEMMS(64)
GEMMS(128)
EXPERTS(16)
EXPERTS(64)
