// Pairs of a token and one of its experts, in the order of the experts, each expert from a new row tile on.
//
//   moe_sort  experts [pairs] u32  ->  tiles [max_tiles]: the expert of a row tile and where its rows end, or (0, 0) where nothing is to do;
//                                      order [max_tiles * tile_rows]: the pair of a row;  rows [pairs]: the row of a pair
//   tiling    a block an expert: each counts all pairs, sums the tiles of the experts before its own, and places its own pairs in order.
//             Counts are sums of integers, in shared memory; nothing depends on which block runs first
//   roofline  none: pairs * 4 bytes from the second-level cache, 2 passes a block. 64 tokens of 8 experts: 2 rounds; 8192: 256 of two barriers
#include "vectors.cuh"

struct Sort {
  const uint32_t* experts;
  uint32_t* order;
  uint32_t* rows;
  uint2* tiles;
  int pairs, num_experts, tile_rows, max_tiles;  // num_experts at most MAX_EXPERTS
};

constexpr int MAX_EXPERTS = 512;
constexpr int SORT_THREADS = 256, SORT_WARPS = SORT_THREADS / 32;

extern "C" __global__ void __launch_bounds__(SORT_THREADS) moe_sort(const Sort p) {
  SMEM_ARRAY(uint32_t, counts, MAX_EXPERTS);
  SMEM_ARRAY(uint32_t, found, SORT_WARPS);
  SMEM_ARRAY(uint32_t, before, 1);
  after_former_kernel();
  const int own = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int at = threadIdx.x; at < MAX_EXPERTS; at += SORT_THREADS) counts[at] = 0;
  if (threadIdx.x == 0) before[0] = 0;
  __syncthreads();
  for (int pair = threadIdx.x; pair < p.pairs; pair += SORT_THREADS) atomicAdd(&counts[p.experts[pair]], 1u);
  __syncthreads();
  auto tiles_of = [&](int expert) { return (counts[expert] + p.tile_rows - 1) / p.tile_rows; };
  for (int expert = threadIdx.x; expert < own; expert += SORT_THREADS) atomicAdd(&before[0], tiles_of(expert));
  __syncthreads();

  const uint32_t first_tile = before[0], num_tiles = tiles_of(own), first_row = first_tile * p.tile_rows;
  for (uint32_t tile = threadIdx.x; tile < num_tiles; tile += SORT_THREADS) {
    p.tiles[first_tile + tile] = make_uint2(own, first_row + counts[own]);
  }
  if (own == p.num_experts - 1) {
    for (int tile = first_tile + num_tiles + threadIdx.x; tile < p.max_tiles; tile += SORT_THREADS) p.tiles[tile] = make_uint2(0, 0);
  }
  uint32_t next_row = first_row;
  for (int first = 0; first < p.pairs; first += SORT_THREADS) {
    const int pair = first + threadIdx.x;
    const bool is_own = pair < p.pairs && static_cast<int>(p.experts[pair]) == own;
    const uint32_t mine = __ballot_sync(FULL_WARP, is_own);
    if (lane == 0) found[warp] = __popc(mine);
    __syncthreads();
    uint32_t row = next_row + __popc(mine & ((1u << lane) - 1));
#pragma unroll
    for (int idx = 0; idx < SORT_WARPS; idx++) {
      if (idx < warp) row += found[idx];
      next_row += found[idx];
    }
    if (is_own) p.order[row] = pair, p.rows[pair] = row;
    __syncthreads();
  }
}
