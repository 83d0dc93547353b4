// The first look at logits: sparse edits, then the best token of each row, which is all that a greedy row needs.
//
//   edit_logits  logits [R, V] f32 in place: tokens that are out, biases, penalties by token counts; what they replace is kept
//   scan_logits  logits [R, V]  ->  the best candidate a row, or FAULT: a NaN, a +infinity, or no token left
//   tiling    a block a row; a block a tile of 8192 tokens, the last of a row to arrive puts them together. Candidates are integers
//             and the least of them wins, so no order shows
//   roofline  4 R V bytes / DRAM bandwidth (from the cache where the head's matmul has just written them), and V / 8 bytes a mask
#include "logits.cuh"

constexpr int TILE = 8192;
constexpr int THREADS = 256;

// One edit: logit `token` becomes f(logit). False where either is no number below +infinity.
template <class F>
__device__ __forceinline__ bool edit(const Sampling& p, const Logits& logits, uint32_t entry, F f) {
  const uint32_t token = p.lists[entry];
  const float old = logits.at[token], next = f(logits[token]);
  p.saved[entry] = old;
  logits.at[token] = next;
  return old < INFINITY && next < INFINITY;
}

extern "C" __global__ void __launch_bounds__(THREADS) edit_logits(const Sampling p) {
  after_former_kernel();
  const SampleRow row = p.rows[blockIdx.x];
  if (row.kind == IDLE || !has_edits(row)) return;
  const Logits logits = logits_of(p, row);
  const Edits edits = edits_of(row);
  int sound = 1;
  for (uint32_t idx = threadIdx.x; idx < row.num_out; idx += THREADS) {
    sound &= edit(p, logits, edits.out + idx, [](float) { return OUT; });
  }
  __syncthreads();
  for (uint32_t idx = threadIdx.x; idx < row.num_biases; idx += THREADS) {
    const float bias = __uint_as_float(p.lists[edits.biases + 2 * idx + 1]);
    sound &= edit(p, logits, edits.biases + 2 * idx, [=](float logit) { return __fadd_rn(logit, bias); });
  }
  __syncthreads();
  for (uint32_t idx = threadIdx.x; idx < row.num_counts; idx += THREADS) {
    const uint32_t output = p.lists[edits.counts + 2 * idx + 1];
    const float off = __fadd_rn(__fmul_rn(row.frequency, __uint2float_rn(output)), row.presence);
    sound &= edit(p, logits, edits.counts + 2 * idx, [&](float logit) {
      logit = logit > 0.0f ? __fdiv_rn(logit, row.repetition) : __fmul_rn(logit, row.repetition);
      return output > 0 ? __fsub_rn(logit, off) : logit;
    });
  }
  const bool all_sound = __syncthreads_and(sound);
  if (threadIdx.x == 0) p.partials[static_cast<size_t>(blockIdx.x) * (p.tiles + 1) + p.tiles] = all_sound ? WORST : FAULT;
}

// Puts a row's tiles together; one warp.
__device__ __forceinline__ void finish(const Sampling& p, const SampleRow& row, int idx) {
  const uint64_t* partials = p.partials + static_cast<size_t>(idx) * (p.tiles + 1);
  uint64_t best = WORST;
  for (int tile = threadIdx.x; tile < p.tiles + has_edits(row); tile += 32) best = min(best, __ldcg(partials + tile));
  best = warp_least(best);
  if (threadIdx.x != 0) return;
  const bool sound = best != FAULT && logit_of(best) > OUT;
  const uint32_t token = row.kind == KNOWN ? row.known : static_cast<uint32_t>(best);
  p.results[idx].best = sound ? best : FAULT;
  p.results[idx].token = token;
  if (row.kind == GREEDY) p.tokens[row.logits] = token;
}

extern "C" __global__ void __launch_bounds__(THREADS) scan_logits(const Sampling p) {
  SMEM_ARRAY(uint64_t, warps, THREADS / 32);
  SMEM_ARRAY(uint32_t, is_last, 1);
  after_former_kernel();
  const int idx = blockIdx.y, tile = blockIdx.x;
  const SampleRow row = p.rows[idx];
  if (row.kind == IDLE) return;
  uint64_t best = WORST;
  logits_of(p, row).for_each(tile * TILE, min((tile + 1) * TILE, p.vocab), [&](int token, float logit, bool allowed) {
    best = min(best, logit < INFINITY ? candidate(allowed ? logit : OUT, token) : FAULT);
  });
  best = warp_least(best);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (uint64_t other : warps) best = min(best, other);
    p.partials[static_cast<size_t>(idx) * (p.tiles + 1) + tile] = best;
    __threadfence();
    const uint32_t last = p.tiles - 1;
    is_last[0] = atomicInc(p.arrived + idx, last) == last;
    __threadfence();
  }
  __syncthreads();
  if (is_last[0] && threadIdx.x < 32) finish(p, row, idx);
}
