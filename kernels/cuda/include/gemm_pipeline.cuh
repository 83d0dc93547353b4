// The loop of all matmuls: operands through a ring of shared-memory stages, K in splits, and who adds them up.
//
// A kind of weight brings a `Work`:
//   TM, STAGES                        rows of the block's tile; stages of the ring
//   steps                             stages that K takes
//   load_x(slot, step)                asks for a step's activations, into a slot of the ring
//   load_w(slot, step, is_first)      asks for its weights; the block's first step has none before it
//   landed(slot)                      what a thread makes of its own copies of a slot, before others see them
//   multiply(sums, slot, step)        adds a step's products
//
//   splits    K is cut into p.splits even runs of steps, a number that the host derives from the weight's shape alone. Each run is
//             summed from zero, and the runs' sums are added in order: by one block that takes them all (gridDim.z 1), or by the last of
//             the blocks that take one each (gridDim.z p.splits), through p.partials [splits, tiles, TM * TN] f32. The bits are
//             the same, so the host may choose by the number of rows.
//   counters  p.arrived, one a tile, zero before and after
#pragma once

#include "gemm_out.cuh"
#include "last_block.cuh"

// A `Work` that multiplies what it is given.
struct AsGiven {
  __device__ __forceinline__ void landed(int) const {}
};

// The first step of a split.
__device__ __forceinline__ int split_start(const Gemm& p, int steps, int split) { return split * steps / p.splits; }

// Leaves this block's sums for the last block of its tile, where they become the sums of all; false in the others.
template <int THREADS, int MT, int NT>
__device__ __forceinline__ bool merge_splits(const Gemm& p, Sums<MT, NT>& sums, void* scratch) {
  constexpr int FRAGMENTS = MT * NT * THREADS;
  const int tile = blockIdx.y * gridDim.x + blockIdx.x, tiles = gridDim.x * gridDim.y;
  float4* partials = reinterpret_cast<float4*>(p.partials) + threadIdx.x;
  float4* own = partials + static_cast<size_t>(blockIdx.z * tiles + tile) * FRAGMENTS;
#pragma unroll
  for (int idx = 0; idx < MT * NT; idx++) {
    const float* at = sums.at[idx / NT][idx % NT];
    __stcg(own + idx * THREADS, make_float4(at[0], at[1], at[2], at[3]));
  }
  if (!last_to_arrive(p.arrived + tile, p.splits, scratch)) return false;
  sums = Sums<MT, NT>();
  for (int split = 0; split < p.splits; split++) {
    const float4* from = partials + static_cast<size_t>(split * tiles + tile) * FRAGMENTS;
#pragma unroll
    for (int idx = 0; idx < MT * NT; idx++) sums.add(idx / NT, idx % NT, __ldcg(from + idx * THREADS));
  }
  return true;
}

// `ring` is the block's dynamic shared memory, which `work` lays out.
template <Out OUT, class Work>
__device__ __forceinline__ void gemm(const Gemm& p, Work& work, unsigned char* ring) {
  constexpr int STAGES = Work::STAGES;
  using L = Layout<Work::TM>;
  const L at;
  const bool is_shared = L::SHARES && gridDim.z > 1;
  int split = blockIdx.z;
  const int first = split_start(p, work.steps, split);
  int split_end = split_start(p, work.steps, split + 1);
  const int end = is_shared ? split_end : work.steps;
  auto load_x = [&](int step) {
    if (step < end) work.load_x((step - first) % STAGES, step);
    cp_async_commit();
  };
  auto load_w = [&](int step) {
    if (step < end) work.load_w((step - first) % STAGES, step, step == first);
  };
  // Weights are no kernel's output: they are under way while the kernel before ends. All of them arrive with the first stage.
  for (int step = first; step < first + STAGES - 1; step++) load_w(step);
  after_former_kernel();
  for (int step = first; step < first + STAGES - 1; step++) load_x(step);
  Sums<L::MT, L::NT> sums, total;
  for (int step = first; step < end; step++) {
    cp_async_wait<STAGES - 2>();
    work.landed((step - first) % STAGES);
    __syncthreads();
    load_w(step + STAGES - 1);
    load_x(step + STAGES - 1);
    work.multiply(sums, (step - first) % STAGES, step);
    if (step + 1 == split_end) {
      total.take(sums);
      split_end = split_start(p, work.steps, ++split + 1);
    }
  }
  cp_async_wait<0>();
  __syncthreads();
  if (is_shared && !merge_splits<L::THREADS>(p, total, ring)) return;
  finish<OUT>(p, at, total);
}
