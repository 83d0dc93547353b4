// Selection without sorting: which candidate, best first, is the one that makes the values up to it reach a target. Values are
// integers, so their sums are exact in any order.
//
// A pass over the row sums the values into bins, the bin that holds the target is the next pass's row, and once it has no more
// than LIST members these are compared with each other. The first bins are depths below the peak, which spread what models say;
// the ones after are digits of the candidates, which split anything.
#pragma once

#include "logits.cuh"

constexpr int SELECT_THREADS = 512;
constexpr int DIGIT_BITS = 11, BINS = 1 << DIGIT_BITS;
constexpr int LIST = SELECT_THREADS;

struct Select {
  uint32_t low[BINS], high[BINS];  // 64-bit sums in halves: shared memory adds 32 bits at once
  uint64_t items[LIST];
  uint32_t values[LIST];
  uint64_t warps[SELECT_THREADS / 32];
  uint64_t before, found;
  uint32_t count, bin;
};

__device__ __forceinline__ uint64_t warp_sum64(uint64_t x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(FULL_WARP, x, step);
  return x;
}

// The sum over the block, for every thread; ends behind a barrier, and the next one may follow at once.
__device__ __forceinline__ uint64_t block_sum64(Select& s, uint64_t x) {
  x = warp_sum64(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.warps[threadIdx.x / 32] = x;
  __syncthreads();
  uint64_t sum = 0;
  for (uint64_t warp : s.warps) sum += warp;
  return sum;
}

__device__ __forceinline__ void clear(Select& s) {
  for (int bin = threadIdx.x; bin < BINS; bin += SELECT_THREADS) s.low[bin] = s.high[bin] = 0;
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
}

__device__ __forceinline__ void add(Select& s, uint32_t bin, uint32_t value) {
  if (atomicAdd(&s.low[bin], value) + value < value) atomicAdd(&s.high[bin], 1u);
}

__device__ __forceinline__ void push(Select& s, uint64_t item, uint32_t value) {
  const uint32_t at = atomicAdd(&s.count, 1u);
  if (at >= LIST) return;
  s.items[at] = item;
  s.values[at] = value;
}

// Finds the bin where the running sum reaches target(sum of all), which it returns: s.bin, with s.before in the bins before.
template <class Target>
__device__ __forceinline__ uint64_t find_bin(Select& s, Target target) {
  constexpr int EACH = BINS / SELECT_THREADS;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();
  uint64_t sums[EACH], own = 0;
#pragma unroll
  for (int idx = 0; idx < EACH; idx++) {
    const int bin = threadIdx.x * EACH + idx;
    sums[idx] = static_cast<uint64_t>(s.high[bin]) << 32 | s.low[bin];
    own += sums[idx];
  }
  uint64_t before = own;
#pragma unroll
  for (int step = 1; step < 32; step <<= 1) {
    const uint64_t lower = __shfl_up_sync(FULL_WARP, before, step);
    before += lane >= step ? lower : 0;
  }
  if (lane == 31) s.warps[warp] = before;
  before -= own;
  __syncthreads();
  uint64_t total = 0;
  for (int other = 0; other < SELECT_THREADS / 32; other++) {
    before += other < warp ? s.warps[other] : 0;
    total += s.warps[other];
  }
  const uint64_t wanted = target(total);
#pragma unroll
  for (int idx = 0; idx < EACH; idx++) {
    if (before < wanted && wanted <= before + sums[idx]) {
      s.bin = threadIdx.x * EACH + idx;
      s.before = before;
    }
    before += sums[idx];
  }
  __syncthreads();
  return wanted;
}

// The listed item where the running sum, best first, reaches `wanted`.
__device__ __forceinline__ uint64_t find_item(Select& s, uint64_t wanted) {
  const uint32_t count = s.count;
  if (threadIdx.x < count) {
    const uint64_t item = s.items[threadIdx.x];
    uint64_t before = 0;
    for (uint32_t idx = 0; idx < count; idx++) before += s.items[idx] < item ? s.values[idx] : 0;
    if (before < wanted && wanted <= before + s.values[threadIdx.x]) s.found = item;
  }
  __syncthreads();
  return s.found;
}

// Which of BINS depths a logit has, `scale` of them a unit below `peak`; deeper ones share the last.
__device__ __forceinline__ uint32_t depth_of(float logit, float peak, float scale) {
  return __float2uint_rz(fminf(__fmul_rn(__fsub_rn(peak, logit), scale), BINS - 1));
}

// The candidate, best first, where the running sum of value(logit, candidate) reaches target(sum of all), which is not nothing.
template <class Value, class Target>
__device__ __forceinline__ uint64_t select(Select& s, const Logits& logits, float peak, float scale, Value value, Target target) {
  uint64_t wanted = 0, prefix = 0;
  uint32_t depth = 0;
  int known = 64;  // the candidates in question have `prefix` above this bit
  for (int level = 0;; level++) {
    const int shift = level == 0 ? 64 : max(0, known - DIGIT_BITS);
    clear(s);
    logits.for_each(0, logits.vocab, [&](int token, float logit, bool allowed) {
      logit = allowed ? logit : OUT;
      const uint64_t item = candidate(logit, token);
      const uint32_t bin = depth_of(logit, peak, scale);
      if (level > 0 && (bin != depth || (known < 64 && item >> known != prefix))) return;
      const uint32_t worth = value(logit, item);
      if (worth == 0) return;
      add(s, level == 0 ? bin : item >> shift & (BINS - 1), worth);
      if (level > 0) push(s, item, worth);
    });
    __syncthreads();
    if (level > 0 && s.count <= LIST) return find_item(s, wanted);
    wanted = find_bin(s, [&](uint64_t total) { return level == 0 ? target(total) : wanted; }) - s.before;
    if (level == 0) depth = s.bin;
    else prefix = prefix << (known - shift) | (s.bin & ((1u << (known - shift)) - 1));
    known = shift;
  }
}

// The k-th best candidate.
__device__ __forceinline__ uint64_t select_kth(Select& s, const Logits& logits, float peak, uint32_t k) {
  constexpr float SCALE = 48.0f;  // 2048 bins reach 42 logits down
  return select(s, logits, peak, SCALE, [](float, uint64_t) { return 1u; }, [&](uint64_t) { return k; });
}
