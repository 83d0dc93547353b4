// One head of one token by one warp: normalized where there are gains, rotated, and put where the caller says. The arithmetic is
// written out, so that every kernel that includes it gets the same bits.
#pragma once

#include "vectors.cuh"

constexpr uint32_t SKIP = 0xffffffffu;  // the slot of padding

struct RopeWrite {
  const float* qkv;     // [T, (Hq + 2 Hkv) D]
  const float* q_gain;  // null where heads are not normalized
  const float* k_gain;
  const float* cos;  // [max_len, rotary_dim / 2], and sin
  const float* sin;
  const uint32_t* positions;
  const uint32_t* slots;
  __nv_bfloat16* q;  // [T, Hq D]
  void* cache;       // of one layer: [block, K then V, Hkv, block_size, D]
  int num_heads, num_kv_heads, head_dim, rotary_dim, block_size;
  float q_eps, k_eps;
  float k_inverse, v_inverse;  // what K and V are multiplied by on their way into the cache
};

// Heads are counted as in a row of qkv: queries, then keys, then values. `put(d, x)` takes each dimension once.
template <class Put>
__device__ __forceinline__ void rope_head(const RopeWrite& p, int token, int head, Put put) {
  const int lane = threadIdx.x % 32, heads = p.num_heads + 2 * p.num_kv_heads;
  const bool is_query = head < p.num_heads, is_value = head >= p.num_heads + p.num_kv_heads;
  const float* x = p.qkv + (static_cast<size_t>(token) * heads + head) * p.head_dim;
  const float* gain = is_query ? p.q_gain : is_value ? nullptr : p.k_gain;
  float scale = 1.0f;
  if (gain != nullptr) {
    float squares = 0.0f;
    for (int d = lane; d < p.head_dim; d += 32) squares = __fmaf_rn(x[d], x[d], squares);
    scale = rsqrtf(__fadd_rn(warp_sum(squares) / p.head_dim, is_query ? p.q_eps : p.k_eps));
  }
  const auto normed = [&](int d) { return gain == nullptr ? x[d] : __fmul_rn(__fmul_rn(x[d], scale), gain[d]); };
  const int half = is_value ? 0 : p.rotary_dim / 2;
  const size_t angles = static_cast<size_t>(p.positions[token]) * half;
  for (int pair = lane; pair < half; pair += 32) {
    const float a = normed(pair), b = normed(pair + half);
    const float cos = p.cos[angles + pair], sin = p.sin[angles + pair];
    put(pair, __fmaf_rn(a, cos, -__fmul_rn(b, sin)));
    put(pair + half, __fmaf_rn(b, cos, __fmul_rn(a, sin)));
  }
  for (int d = 2 * half + lane; d < p.head_dim; d += 32) put(d, normed(d));
}

// Writes a token's key or value head to its slot, as elements `Kv`: bf16, or e4m3, which saturates.
template <class Kv>
__device__ __forceinline__ void write_kv(const RopeWrite& p, int token, int head) {
  const uint32_t slot = p.slots[token];
  if (slot == SKIP) return;
  const size_t block = slot / p.block_size, offset = slot % p.block_size;
  const size_t kv_head = head - p.num_heads;  // keys' heads, then values': as the cache has them
  Kv* out = static_cast<Kv*>(p.cache) + ((block * 2 * p.num_kv_heads + kv_head) * p.block_size + offset) * p.head_dim;
  const float inverse = head < p.num_heads + p.num_kv_heads ? p.k_inverse : p.v_inverse;
  rope_head(p, token, head, [=](int d, float x) { out[d] = Kv(__fmul_rn(x, inverse)); });
}
