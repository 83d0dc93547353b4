// A matmul whose row tiles have matrices of their own: the experts of a stack, each on the rows that moe_sort.cu gave it.
//
// The grid has as many row tiles as there can be, whatever the routing; blocks without rows return at once.
#pragma once

#include "gemm_out.cuh"

struct Experts {
  Gemm gemm;           // of the first expert
  const uint2* tiles;  // of a row tile: its expert, and where the expert's rows end
  size_t w_bytes, meta_bytes;  // from one expert to the next
};

// The block's own matmul; false where it has none.
__device__ __forceinline__ bool choose_expert(const Experts& p, Gemm& own) {
  // The tiles are what a kernel before wrote: unlike the weights of other matmuls, an expert's cannot be asked for any earlier.
  after_former_kernel();
  const uint2 tile = p.tiles[blockIdx.y];
  own = p.gemm;
  own.w = static_cast<const unsigned char*>(p.gemm.w) + tile.x * p.w_bytes;
  own.meta = static_cast<const unsigned char*>(p.gemm.meta) + tile.x * p.meta_bytes;
  own.m = static_cast<int>(tile.y);
  own.bias = nullptr, own.peaks = nullptr;  // which the host's are too, but compilers do not know
  return tile.y != 0;
}
