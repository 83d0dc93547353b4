// Operands of attention's matrix products out of shared memory, by the cache's element.
//
// The fragments of bf16 come as they are. Of e4m3 a matrix of 8 x 8 pairs of bytes holds 16 dimensions, and a thread gets the
// bytes of four neighbours: they become bf16 exactly, the even ones in one register and the odd ones in the other. So within
// 16 dimensions the products run in another order, in which the queries follow for K, and the columns of the sums for V.
#pragma once

#include "vectors.cuh"

constexpr int TILE = 32;  // positions

// Rows of shared memory take an odd number of 16 bytes: eight rows of a matrix lie in different banks.
template <int BYTES>
constexpr int ROW_BYTES = 16 * (BYTES / 16 | 1);

// The e4m3 in the upper byte of each half, as bf16: their exponents are 120 apart.
__device__ __forceinline__ uint32_t e4m3_to_bf16(uint32_t bytes) {
  const uint32_t bits = (bytes & 0x80008000u) | (bytes >> 4 & 0x07f007f0u);
  return bit_cast_<uint32_t>(__hmul2(bit_cast_<__nv_bfloat162>(bits), bit_cast_<__nv_bfloat162>(0x7b807b80u)));
}

template <class Kv, int D>
struct Fragments;

template <int D>
struct Fragments<__nv_bfloat16, D> {
  static constexpr int ROW = ROW_BYTES<2 * D>;

  // Dimensions 16 step .. of 16 queries, in rows of shared memory.
  static __device__ __forceinline__ void queries(uint32_t (&q)[4], const unsigned char* rows, int step) {
    const int lane = threadIdx.x % 32;
    ldmatrix_x4(q, rows + lane % 16 * ROW + (step * 2 + lane / 16) * 16);
  }

  // The same of a tile's keys, eight positions each.
  static __device__ __forceinline__ void keys(uint32_t (&k)[TILE / 8][2], const unsigned char* tile, int step) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < TILE / 16; n++) {
      uint32_t words[4];
      ldmatrix_x4(words, tile + (n * 16 + lane / 16 * 8 + lane % 8) * ROW + (step * 2 + lane / 8 % 2) * 16);
      k[n * 2][0] = words[0], k[n * 2][1] = words[1];
      k[n * 2 + 1][0] = words[2], k[n * 2 + 1][1] = words[3];
    }
  }

  // Dimensions 16 n .. of a tile's values, in halves, 16 positions each.
  static __device__ __forceinline__ void values(uint32_t (&v)[TILE / 16][2][2], const unsigned char* tile, int n) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < TILE / 16; step++) {
      uint32_t words[4];
      ldmatrix_x4_trans(words, tile + (step * 16 + lane % 16) * ROW + (n * 2 + lane / 16) * 16);
      v[step][0][0] = words[0], v[step][0][1] = words[1];
      v[step][1][0] = words[2], v[step][1][1] = words[3];
    }
  }

  // Calls `use(column, first, second)` for neighbouring sums of one of the thread's two rows.
  template <class Use>
  static __device__ __forceinline__ void pairs(const float (&sums)[D / 8][4], int half, Use use) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) use(n * 8 + threadIdx.x % 4 * 2, sums[n][half * 2], sums[n][half * 2 + 1]);
  }
};

template <int D>
struct Fragments<__nv_fp8_e4m3, D> {
  static_assert(TILE == 32, "one matrix load takes all positions of a tile");
  static constexpr int ROW = ROW_BYTES<D>, Q_ROW = ROW_BYTES<2 * D>;

  static __device__ __forceinline__ void queries(uint32_t (&q)[4], const unsigned char* rows, int step) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned char* row = rows + (half * 8 + lane / 4) * Q_ROW;
      const uint2 four = *reinterpret_cast<const uint2*>(row + step * 32 + lane % 4 * 8);
      q[half] = __byte_perm(four.x, four.y, 0x5410);
      q[half + 2] = __byte_perm(four.x, four.y, 0x7632);
    }
  }

  static __device__ __forceinline__ void keys(uint32_t (&k)[TILE / 8][2], const unsigned char* tile, int step) {
    uint32_t words[4];
    ldmatrix_x4(words, tile + threadIdx.x % 32 * ROW + step * 16);
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) k[n][0] = e4m3_to_bf16(words[n] << 8), k[n][1] = e4m3_to_bf16(words[n]);
  }

  static __device__ __forceinline__ void values(uint32_t (&v)[TILE / 16][2][2], const unsigned char* tile, int n) {
    // Else all values of wide heads are asked for at once, and do not fit in registers.
    if (D > 128) __syncwarp();
    uint32_t words[4];
    ldmatrix_x4_trans(words, tile + threadIdx.x % 32 * ROW + n * 16);
#pragma unroll
    for (int idx = 0; idx < 4; idx++) {
      v[idx / 2][0][idx % 2] = e4m3_to_bf16(words[idx] << 8);
      v[idx / 2][1][idx % 2] = e4m3_to_bf16(words[idx]);
    }
  }

  template <class Use>
  static __device__ __forceinline__ void pairs(const float (&sums)[D / 8][4], int half, Use use) {
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      const int column = n * 16 + threadIdx.x % 4 * 4;
      const float *even = sums[n * 2] + half * 2, *odd = sums[n * 2 + 1] + half * 2;
      use(column, even[0], odd[0]);
      use(column + 2, even[1], odd[1]);
    }
  }
};
