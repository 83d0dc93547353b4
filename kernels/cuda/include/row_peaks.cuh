// The largest magnitude of each of a few rows of bf16, of which no block sees a whole one: for the matmul that makes codes of them.
//
// Blocks raise words, in any order: a maximum has none. A norm zeroes them, some kernels earlier (norm.cu).
#pragma once

#include "vectors.cuh"

constexpr int PEAK_ROWS = 16;   // as the smallest tile of a matmul has
constexpr int PEAK_COPIES = 8;  // [8, 16] words: what one address would have to take in turns is spread, and their reader has eight lanes a row

// The larger magnitude of a pair of bf16, as the bits of a float: ordered as the numbers are, and NaN above all.
__device__ __forceinline__ uint32_t pair_magnitude(uint32_t pair) { return max(pair << 16 & 0x7fffffffu, pair & 0x7fff0000u); }

// Counts what four neighbouring lanes, which all call this, have of a row.
__device__ __forceinline__ void raise_peak(uint32_t* peaks, int copy, int row, uint32_t largest) {
  const int lane = threadIdx.x % 32;
  const uint32_t quad = 0xfu << lane / 4 * 4;
  largest = max(largest, __shfl_xor_sync(quad, largest, 1));
  largest = max(largest, __shfl_xor_sync(quad, largest, 2));
  if (lane % 4 == 0 && largest != 0) atomicMax(peaks + copy % PEAK_COPIES * PEAK_ROWS + row, largest);
}

// The whole row's, in each of the eight lanes that bring one copy's each.
__device__ __forceinline__ uint32_t max_of_eight(uint32_t largest) {
#pragma unroll
  for (int step = 1; step < PEAK_COPIES; step <<= 1) largest = max(largest, __shfl_xor_sync(FULL_WARP, largest, step));
  return largest;
}
