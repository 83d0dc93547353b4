// Draws tokens: top-k, top-p and min-p leave the best candidates up to one, and of these the noise picks by weight, in token order.
//
//   sample_tokens  logits [R, V] as scan_logits saw them, best candidates  ->  a token a row
//   tiling    one block of 512 threads a row, which passes over the row, from the cache after the first: once to draw, and twice more
//             for each of top-k and top-p (select.cuh). Weights are integers of 2^-30 of the best token's, so no order shows
//   roofline  4 R V bytes / DRAM bandwidth for each pass where the rows outgrow the cache; else a block's rate from the cache
#include "select.cuh"

// Depths a unit of temperature: candidates have weight down to 21 units, and there are 2048 bins.
constexpr float SCALE = 96.0f;

// The last candidate, best first, that stays in.
__device__ __forceinline__ uint64_t last_kept(Select& s, const SampleRow& row, const Logits& logits, float peak) {
  uint64_t last = WORST;
  if (row.top_k > 0 && row.top_k < static_cast<uint32_t>(logits.vocab)) last = select_kth(s, logits, peak, row.top_k);
  if (row.top_p < 1.0f) {
    const auto weight = [&](float logit, uint64_t item) { return item <= last ? weight_of(logit, peak, row.inverse) : 0; };
    const auto share = [&](uint64_t total) {
      const double part = ceil(static_cast<double>(row.top_p) * static_cast<double>(total));
      return min(max(static_cast<uint64_t>(part), uint64_t{1}), total);
    };
    last = select(s, logits, peak, SCALE * row.inverse, weight, share);
  }
  return min(last, candidate(__fadd_rn(peak, row.floor), NONE));
}

// The token at which the running sum of kept weights, in token order, passes the noise's part of the whole: first the stretch of
// tokens, each summed by a warp, then the token in it.
__device__ __forceinline__ void draw(Select& s, const Sampling& p, const SampleRow& row, const Logits& logits, float peak,
                                     uint64_t last) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int stretch = (logits.vocab + 32 * BINS - 1) / (32 * BINS) * 32;
  const auto weight = [&](int token) -> uint64_t {
    if (token >= logits.vocab) return 0;
    const float logit = logits[token];
    return candidate(logit, token) <= last ? weight_of(logit, peak, row.inverse) : 0;
  };
  clear(s);
  for (int at = warp; at * stretch < logits.vocab; at += SELECT_THREADS / 32) {
    uint64_t sum = 0;
    for (int idx = lane; idx < stretch; idx += 32) sum += weight(at * stretch + idx);
    sum = warp_sum64(sum);
    if (lane == 0) {
      s.low[at] = static_cast<uint32_t>(sum);
      s.high[at] = static_cast<uint32_t>(sum >> 32);
    }
  }
  const uint64_t wanted = find_bin(s, [&](uint64_t total) { return __umul64hi(row.noise, total) + 1; });
  if (warp != 0) return;
  uint64_t before = s.before;
  for (int first = s.bin * stretch;; first += 32) {
    const uint64_t own = weight(first + lane);
    uint64_t sum = own;
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
      const uint64_t lower = __shfl_up_sync(FULL_WARP, sum, step);
      sum += lane >= step ? lower : 0;
    }
    if (before + sum - own < wanted && wanted <= before + sum) {
      p.results[blockIdx.x].token = first + lane;
      p.tokens[row.logits] = first + lane;
    }
    before += __shfl_sync(FULL_WARP, sum, 31);
    if (wanted <= before) return;
  }
}

extern "C" __global__ void __launch_bounds__(SELECT_THREADS, 2) sample_tokens(const Sampling p) {
  SMEM_ARRAY(Select, shared, 1);
  after_former_kernel();
  const SampleRow row = p.rows[blockIdx.x];
  if (row.kind != DRAW) return;
  const uint64_t best = p.results[blockIdx.x].best;
  if (best == FAULT) return;
  const Logits logits = logits_of(p, row);
  const float peak = logit_of(best);
  draw(shared[0], p, row, logits, peak, last_kept(shared[0], row, logits, peak));
}
