// Matmuls whose weights are integers with a scale for some inputs of an output: what all such kinds share.
//
// Codes are exact in bf16: a group's products are summed by the tensor core, then scaled in f32. Where a group has a minimum,
// it is multiplied by the sum of the group's inputs, which a fragment of ones gives.
//
// A kind is a `Codec` of a block's layout:
//   STAGES, CODES, META               of the ring; bytes of a stage's codes, and of the scales that go with them
//   GROUP                             inputs that are summed before they are scaled: 16, 32 or 64
//   HAS_MIN                           whether value = scale * code + minimum, and not scale * code
//   meta_shift(p)                     log2 of the stages that share scales
//   load_codes(to, p, output, step), load_meta(to, p, output, row)
//   Group<NT>(stage, ...)             one warp's view of a group: fragments, scales and minimums
//
// Codes lie as a tensor core's fragments want them, in words of lane (n, t) of 8 outputs by 4:
//   4 bits  the k of its pairs (2t, 2t+1), (2t+8, 2t+9), (2t+16, ..), (2t+24, ..): nibble i and i + 4 are pair i
#pragma once

#include "experts.cuh"
#include "gemm_pipeline.cuh"

// Asks for a block's outputs of rows `first ..` of `plane [rows, n * BYTES]`; zeros beyond it. n a multiple of 8.
template <class L, int BYTES, int ROWS>
__device__ __forceinline__ void load_outputs(unsigned char* to, const void* plane, int first, int rows, int output, int n) {
  constexpr int CHUNKS_PER_ROW = L::TN * BYTES / 16;
  const unsigned char* from = static_cast<const unsigned char*>(plane);
  for (int at = threadIdx.x; at < ROWS * CHUNKS_PER_ROW; at += L::THREADS) {
    const int row = first + at / CHUNKS_PER_ROW, chunk = at % CHUNKS_PER_ROW;
    const bool inside = row < rows && output + chunk * 16 / BYTES < n;
    const size_t offset = (static_cast<size_t>(row) * n + output) * BYTES + chunk * 16;
    cp_async16(to + at * 16, inside ? from + offset : from, inside);
  }
}

// Words of a tile of 8 outputs, and of a block's run of them.
constexpr int TILE_WORDS = 32;
template <class L>
constexpr int RUN_WORDS = L::TN / 8 * TILE_WORDS;
// With 0x43 above, the low seven bits of a bf16 are 128 + their value.
constexpr uint32_t BIAS_128 = 0x43004300u;
constexpr int AND_OR = (0xf0 & 0xcc) | 0xaa;  // of lop3: (a & b) | c

__device__ __forceinline__ uint32_t minus(uint32_t a, uint32_t b) {
  return bit_cast_<uint32_t>(__hsub2(bit_cast_<__nv_bfloat162>(a), bit_cast_<__nv_bfloat162>(b)));
}

// Of a word of nibbles, the fragment of its first or second 16 inputs, less `bias`, which is 128 and what codes count from.
__device__ __forceinline__ void nibbles(uint32_t word, int half, uint32_t bias, uint32_t (&b)[2]) {
  word >>= half * 8;
  b[0] = minus(lop3<AND_OR>(word, 0x000f000fu, BIAS_128), bias);
  b[1] = minus(lop3<AND_OR>(word >> 4, 0x000f000fu, BIAS_128), bias);
}

template <template <class> class Kind, int ROWS>
struct Coded : AsGiven {
  using L = Layout<ROWS>;
  using Codec = Kind<L>;
  static constexpr int TM = ROWS, STAGES = Codec::STAGES;
  static constexpr int X_BYTES = TM * TILE_K * 2;

  const Gemm& p;
  unsigned char* ring;  // stages of activations, of codes, of scales
  const L at;
  const int steps;

  __device__ __forceinline__ Coded(const Gemm& p, unsigned char* ring) : p(p), ring(ring), steps((p.k + TILE_K - 1) / TILE_K) {}

  __device__ __forceinline__ unsigned char* codes(int slot) { return ring + STAGES * X_BYTES + slot * Codec::CODES; }

  // Scales stay as long as a stage that they are for may be read: the next to take their place are STAGES rows of scales later.
  __device__ __forceinline__ unsigned char* meta(int row) {
    return ring + STAGES * (X_BYTES + Codec::CODES) + row % STAGES * Codec::META;
  }

  __device__ __forceinline__ void load_x(int slot, int step) {
    load_tile<TM, L::THREADS>(ring + slot * X_BYTES, p.x, at.first_row, p.m, step * TILE_K, p.k);
  }

  __device__ __forceinline__ void load_w(int slot, int step, bool is_first) {
    Codec::load_codes(codes(slot), p, at.first_output, step);
    const int row = step >> Codec::meta_shift(p);
    if (is_first || row << Codec::meta_shift(p) == step) Codec::load_meta(meta(row), p, at.first_output, row);
  }

  template <int MT, int NT>
  __device__ __forceinline__ void multiply(Sums<MT, NT>& sums, int slot, int step) {
    const unsigned char* scales = meta(step >> Codec::meta_shift(p));
    // A block of 128 rows has no registers left to work on two groups at once.
#pragma unroll MT > 2 ? 1 : TILE_K / Codec::GROUP
    for (int group = 0; group < TILE_K / Codec::GROUP; group++) {
      const typename Codec::template Group<NT> weights(codes(slot), scales, at.column, step, group);
#pragma unroll
      for (int first = 0; first < MT; first += DOTS_M<MT>) add_group(sums, ring + slot * X_BYTES, group, weights, first);
    }
  }

  // Adds a group's products with the tiles of rows from `first` on, as many as their dots have room for in registers.
  template <int MT, int NT>
  __device__ __forceinline__ void add_group(Sums<MT, NT>& sums, const unsigned char* x, int group,
                                            const typename Codec::template Group<NT>& weights, int first) {
    constexpr int PARTS = Codec::GROUP / 16;
    const int lane = threadIdx.x % 32;
    const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};
    Sums<DOTS_M<MT>, NT> dots;
    float inputs[DOTS_M<MT>][4] = {};
#pragma unroll MT > 2 && PARTS > 2 ? 2 : PARTS
    for (int part = 0; part < PARTS; part++) {
      uint32_t a[DOTS_M<MT>][4];
#pragma unroll
      for (int m = 0; m < DOTS_M<MT>; m++) {
        ldmatrix_x4(a[m], x + swizzled(at.row + (first + m) * 16 + lane % 16, (group * PARTS + part) * 2 + lane / 16));
        if (Codec::HAS_MIN) mma_m16n8k16_bf16(inputs[m], a[m], ones);
      }
#pragma unroll
      for (int n = 0; n < NT; n++) {
        uint32_t b[2];
        weights.fragment(part, n, b);
#pragma unroll
        for (int m = 0; m < DOTS_M<MT>; m++) mma_m16n8k16_bf16(dots.at[m][n], a[m], b);
      }
    }
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
      for (int idx = 0; idx < 4; idx++) {
        // x: the scale of the output that element idx belongs to, y: its minimum.
        const float2 factors = weights.factors(n, idx % 2);
#pragma unroll
        for (int m = 0; m < DOTS_M<MT>; m++) {
          float& sum = sums.at[first + m][n][idx];
          sum = __fmaf_rn(dots.at[m][n][idx], factors.x, sum);
          if (Codec::HAS_MIN) sum = __fmaf_rn(factors.y, inputs[m][idx], sum);
        }
      }
    }
  }
};

template <template <class> class Kind, int TM, Out OUT>
__device__ __forceinline__ void coded(const Gemm& p) {
  DYN_SMEM(ring);
  Coded<Kind, TM> work(p, ring);
  gemm<OUT>(p, work, ring);
}

template <template <class> class Kind, int TM, Out OUT>
__device__ __forceinline__ void coded(const Experts& p) {
  Gemm own;
  if (choose_expert(p, own)) coded<Kind, TM, OUT>(own);
}
