// A router's choice: the experts of a token and their weights.
//
//   moe_route  logits [T, experts] f32  ->  experts [T, top_k] u32, weights [T, top_k] f32, slot by slot from the largest logit on
//   shares     of the softmax over all experts, or over the token's own where `renormalize`; of equal logits the first wins; a NaN among
//              the logits is in every weight of the token, and no expert is picked twice
//   tiling     a warp a token, MAX_EXPERTS / 32 logits a lane in registers, top_k rounds of an argmax over the warp
//   roofline   T (4 experts + 8 top_k) bytes / DRAM bandwidth: microseconds; latency of the rounds is what it takes
#include "vectors.cuh"

struct Route {
  const float* logits;
  uint32_t* experts;
  float* weights;
  int tokens, num_experts, top_k;  // at most MAX_EXPERTS, and 32
  int renormalize;
};

constexpr int MAX_EXPERTS = 512;
constexpr int LOGITS = MAX_EXPERTS / 32;  // of a lane: experts lane, lane + 32, ...

// The larger; NaN if either is.
__device__ __forceinline__ float larger(float a, float b) { return b > a || b != b ? b : a; }

extern "C" __global__ void __launch_bounds__(128) moe_route(const Route p) {
  after_former_kernel();
  const int token = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (token >= p.tokens) return;
  const float* row = p.logits + static_cast<size_t>(token) * p.num_experts;
  float logits[LOGITS], max = -INFINITY;
#pragma unroll
  for (int idx = 0; idx < LOGITS; idx++) {
    const int expert = idx * 32 + lane;
    logits[idx] = expert < p.num_experts ? row[expert] : -INFINITY;
    max = larger(max, logits[idx]);
  }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) max = larger(max, __shfl_xor_sync(FULL_WARP, max, step));
  float shares = 0.0f;
#pragma unroll
  for (int idx = 0; idx < LOGITS; idx++) shares += __expf(logits[idx] - max);
  shares = warp_sum(shares);

  uint32_t taken = 0;  // a bit a logit of the lane
  int own_expert = 0;
  float own_weight = 0.0f;  // of slot `lane`
  for (int slot = 0; slot < p.top_k; slot++) {
    int best = MAX_EXPERTS;
    float best_logit = -INFINITY;
#pragma unroll
    for (int idx = 0; idx < LOGITS; idx++) {
      const int expert = idx * 32 + lane;
      const bool free = expert < p.num_experts && (taken >> idx & 1) == 0;
      const float logit = logits[idx] == logits[idx] ? logits[idx] : -INFINITY;
      if (free && (best == MAX_EXPERTS || logit > best_logit)) best = expert, best_logit = logit;
    }
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
      const int other = __shfl_xor_sync(FULL_WARP, best, step);
      const float other_logit = __shfl_xor_sync(FULL_WARP, best_logit, step);
      if (other_logit > best_logit || (other_logit == best_logit && other < best)) best = other, best_logit = other_logit;
    }
    if (best % 32 == lane) taken |= 1u << best / 32;
    if (slot == lane) own_expert = best, own_weight = __expf(best_logit - max);
  }
  const float own_shares = warp_sum(own_weight);
  if (lane >= p.top_k) return;
  const size_t at = static_cast<size_t>(token) * p.top_k + lane;
  p.experts[at] = own_expert;
  p.weights[at] = own_weight / (p.renormalize ? own_shares : shares);
}
