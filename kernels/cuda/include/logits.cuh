// Logits as the kernels that sample read them: what is wanted of each row, the row's logits under its mask, tokens in the order of
// their logits, and what a token weighs. The numbers are crates/sampler's own, to the last bit.
#pragma once

#include "vectors.cuh"

constexpr uint32_t NONE = 0xffffffffu;
constexpr float OUT = -INFINITY;

enum Kind : uint32_t { IDLE, GREEDY, DRAW, KNOWN };

// What is wanted of one row. Offsets are in words from Sampling::lists.
struct SampleRow {
  uint64_t noise;
  Kind kind;
  uint32_t logits;    // which row of the logits
  uint32_t known;     // the token to judge
  uint32_t num_best;  // likeliest tokens to name; NONE where no log probability is wanted
  uint32_t best;      // where they go in Sampling::bests
  uint32_t mask;      // one bit a token, set where it is allowed; NONE allows all
  uint32_t edits;     // tokens that are out; (token, bias); (token, occurrences in the output)
  uint32_t num_out, num_biases, num_counts;
  float repetition, frequency, presence;
  float inverse, floor, top_p;  // as sampler::Draw has them
  uint32_t top_k, unused;
};

struct SampleResult {
  uint64_t best;  // the candidate that a greedy row takes; FAULT where the row cannot be sampled
  uint64_t sum;   // of e^(logit - peak), in units of 2^-40
  uint32_t token;
  uint32_t rank;
  float logit, peak;  // the model's own: the token's, and the greatest
};

struct Sampling {
  const SampleRow* rows;    // [num_rows]
  const uint32_t* lists;
  float* logits;            // [R, vocab]
  float* saved;             // what edits replaced, at the place of the edit in `lists`
  uint64_t* partials;       // [num_rows, tiles + 1] candidates: of each tile, and of the edits
  uint32_t* arrived;        // [num_rows], zero between launches
  SampleResult* results;    // [num_rows]
  uint64_t* bests;
  uint32_t* tokens;         // [R]: what each row of the logits sampled
  int vocab, tiles;
};

// A token with its logit as one number: better ones are smaller, ties go by token; +infinity and NaN count as FAULT.
constexpr uint64_t FAULT = 0, WORST = ~0ull;

__device__ __forceinline__ uint64_t candidate(float logit, uint32_t token) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  const uint32_t descending = bits >> 31 ? bits : ~bits & 0x7fffffffu;
  return static_cast<uint64_t>(descending) << 32 | token;
}

__device__ __forceinline__ float logit_of(uint64_t candidate) {
  const uint32_t descending = static_cast<uint32_t>(candidate >> 32);
  return __uint_as_float(descending >> 31 ? descending : ~descending & 0x7fffffffu);
}

__device__ __forceinline__ uint64_t warp_least(uint64_t x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x = min(x, __shfl_xor_sync(FULL_WARP, x, step));
  return x;
}

// e^x for x <= 0, operation by operation as sampler::exp has it; fused multiplications would round otherwise.
__device__ __forceinline__ float exp_(float x) {
  constexpr float ROUND = 12582912.0f;
  const auto step = [](float sum, float f, float next) { return __fadd_rn(__fmul_rn(sum, f), next); };
  const float y = x > -80.0f ? __fmul_rn(x, 1.44269504088896340736f) : -125.0f;
  const float rounded = __fadd_rn(y, ROUND);
  const float f = __fsub_rn(y, __fsub_rn(rounded, ROUND));
  float poly = 1.535336e-4f;
  poly = step(poly, f, 1.3398874e-3f);
  poly = step(poly, f, 9.618437e-3f);
  poly = step(poly, f, 5.5503324e-2f);
  poly = step(poly, f, 2.4022648e-1f);
  poly = step(poly, f, 0.693147180559945309417f);
  poly = step(poly, f, 1.0f);
  const float value = __fmul_rn(poly, __uint_as_float((__float_as_uint(rounded) + 127) << 23));
  return x > -80.0f ? value : 0.0f;
}

// A token's weight in units of 2^-30.
__device__ __forceinline__ uint32_t weight_of(float logit, float peak, float inverse) {
  return __float2uint_rn(__fmul_rn(exp_(__fmul_rn(__fsub_rn(logit, peak), inverse)), 1073741824.0f));
}

// One row's logits, and its mask where it has one.
struct Logits {
  float* at;
  const uint32_t* mask;
  int vocab;

  __device__ __forceinline__ bool allows(int token) const { return mask == nullptr || mask[token / 32] >> token % 32 & 1; }
  __device__ __forceinline__ float operator[](int token) const { return allows(token) ? at[token] : OUT; }

  // f(token, model's or edited logit, whether it is allowed) of tokens from .. to, shared out over the block; `from` a multiple of 4.
  template <class F>
  __device__ __forceinline__ void for_each(int from, int to, F f) const {
    if (vocab % 4 != 0) {
      for (int token = from + threadIdx.x; token < to; token += blockDim.x) f(token, at[token], allows(token));
      return;
    }
    for (int token = from + threadIdx.x * 4; token < to; token += blockDim.x * 4) {
      const float4 four = *reinterpret_cast<const float4*>(at + token);
      const uint32_t allowed = mask == nullptr ? 15 : mask[token / 32] >> token % 32;
      f(token, four.x, allowed & 1);
      f(token + 1, four.y, allowed & 2);
      f(token + 2, four.z, allowed & 4);
      f(token + 3, four.w, allowed & 8);
    }
  }
};

__device__ __forceinline__ Logits logits_of(const Sampling& p, const SampleRow& row, bool masked = true) {
  const uint32_t* mask = masked && row.mask != NONE ? p.lists + row.mask : nullptr;
  return {p.logits + static_cast<size_t>(row.logits) * p.vocab, mask, p.vocab};
}

// Edits, each in a word or a pair of words of Sampling::lists, in the order in which they apply.
struct Edits {
  uint32_t out, biases, counts;
};

__device__ __forceinline__ Edits edits_of(const SampleRow& row) {
  const uint32_t biases = row.edits + row.num_out;
  return {row.edits, biases, biases + 2 * row.num_biases};
}

__device__ __forceinline__ bool has_edits(const SampleRow& row) { return row.num_out + row.num_biases + row.num_counts != 0; }
