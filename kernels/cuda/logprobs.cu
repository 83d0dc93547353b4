// What log probabilities are made of: of the model's own logits, the greatest, the sum of exponentials, the token's rank, and the
// likeliest tokens in order. The host takes the logarithm.
//
//   log_probs  logits [R, V], edited; tokens sampled or known  ->  sum, rank, logit and peak a row, num_best candidates
//   tiling    one block of 512 threads a row: edits are put back, one pass for the sum and the rank, and up to four for the
//             likeliest. The sum is of integers of 2^-40, so no order shows
//   roofline  4 R V bytes / DRAM bandwidth for each pass where the rows outgrow the cache; else a block's rate from the cache
#include "select.cuh"

// Puts back what edits replaced, the last first.
__device__ __forceinline__ void restore(const Sampling& p, const SampleRow& row, const Logits& logits) {
  const Edits edits = edits_of(row);
  const auto put_back = [&](uint32_t first, uint32_t count, uint32_t words) {
    for (uint32_t idx = threadIdx.x; idx < count; idx += SELECT_THREADS) {
      const uint32_t entry = first + idx * words;
      logits.at[p.lists[entry]] = p.saved[entry];
    }
    __syncthreads();
  };
  put_back(edits.counts, row.num_counts, 2);
  put_back(edits.biases, row.num_biases, 2);
  put_back(edits.out, row.num_out, 1);
}

__device__ __forceinline__ float peak_of(Select& s, const Logits& logits) {
  uint64_t best = WORST;
  logits.for_each(0, logits.vocab, [&](int token, float logit, bool) { best = min(best, candidate(logit, token)); });
  best = warp_least(best);
  if (threadIdx.x % 32 == 0) s.warps[threadIdx.x / 32] = best;
  __syncthreads();
  for (uint64_t other : s.warps) best = min(best, other);
  return logit_of(best);
}

// The `count` likeliest tokens, in order.
__device__ __forceinline__ void name_best(Select& s, const Logits& logits, float peak, uint32_t count, uint64_t* out) {
  const uint64_t last = select_kth(s, logits, peak, count);
  clear(s);
  logits.for_each(0, logits.vocab, [&](int token, float logit, bool) {
    const uint64_t item = candidate(logit, token);
    if (item <= last) push(s, item, 1);
  });
  __syncthreads();
  if (threadIdx.x >= count) return;
  const uint64_t item = s.items[threadIdx.x];
  uint32_t rank = 0;
  for (uint32_t idx = 0; idx < count; idx++) rank += s.items[idx] < item;
  out[rank] = item;
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS, 2) log_probs(const Sampling p) {
  SMEM_ARRAY(Select, shared, 1);
  after_former_kernel();
  Select& s = shared[0];
  const SampleRow row = p.rows[blockIdx.x];
  if (row.kind == IDLE || row.num_best == NONE) return;
  SampleResult* result = p.results + blockIdx.x;
  if (result->best == FAULT) return;
  const Logits logits = logits_of(p, row, false);
  restore(p, row, logits);
  const bool is_changed = has_edits(row) || row.mask != NONE;
  const float peak = is_changed ? peak_of(s, logits) : logit_of(result->best);
  const float own_logit = logits.at[result->token];
  const uint64_t own = candidate(own_logit, result->token);
  uint64_t sum = 0, better = 0;
  logits.for_each(0, logits.vocab, [&](int token, float logit, bool) {
    sum += __float2ull_rn(__fmul_rn(exp_(__fsub_rn(logit, peak)), 1099511627776.0f));
    better += candidate(logit, token) < own;
  });
  sum = block_sum64(s, sum);
  better = block_sum64(s, better);
  if (threadIdx.x == 0) {
    result->sum = sum;
    result->rank = static_cast<uint32_t>(better) + 1;
    result->logit = own_logit;
    result->peak = peak;
  }
  const uint32_t count = min(row.num_best, static_cast<uint32_t>(logits.vocab));
  if (count > 0) name_best(s, logits, peak, count, p.bests + row.best);
}
