// Splits fused qkv rows, normalizes q and k per head where there are gains, rotates them, and writes k and v to the cache.
//
//   qkv [T, (Hq + 2 Hkv) D] f32, cos and sin [max_len, rotary_dim / 2] f32, positions and slots [T]
//   ->  q [T, Hq D] bf16;  cache [block, K then V, Hkv, block_size, D] bf16 at slot = block * block_size + offset
//   tiling    a warp a head, four heads a block;  any even D
//   roofline  bytes of qkv, q and the slots / DRAM bandwidth
#include "vectors.cuh"

constexpr uint32_t SKIP = 0xffffffffu;

struct RopeWrite {
  const float* qkv;
  const float* q_gain;  // null where heads are not normalized
  const float* k_gain;
  const float* cos;
  const float* sin;
  const uint32_t* positions;
  const uint32_t* slots;
  __nv_bfloat16* q;
  __nv_bfloat16* cache;  // of one layer
  int num_heads, num_kv_heads, head_dim, rotary_dim, block_size;
  float q_eps, k_eps;
};

// Where head `head` (queries, then keys, then values) of the token goes; null where nothing is to be written.
__device__ __forceinline__ __nv_bfloat16* target(const RopeWrite& p, int token, int head) {
  if (head < p.num_heads) return p.q + (static_cast<size_t>(token) * p.num_heads + head) * p.head_dim;
  const uint32_t slot = p.slots[token];
  if (slot == SKIP) return nullptr;
  const size_t block = slot / p.block_size, offset = slot % p.block_size;
  const size_t kv_head = head - p.num_heads;  // keys' heads, then values': as the cache has them
  return p.cache + ((block * 2 * p.num_kv_heads + kv_head) * p.block_size + offset) * p.head_dim;
}

extern "C" __global__ void __launch_bounds__(128) rope_write(const RopeWrite p) {
  const int token = blockIdx.x, lane = threadIdx.x % 32, head = blockIdx.y * 4 + threadIdx.x / 32;
  const int heads = p.num_heads + 2 * p.num_kv_heads;
  if (head >= heads) return;
  const bool is_query = head < p.num_heads, is_value = head >= p.num_heads + p.num_kv_heads;
  const float* x = p.qkv + (static_cast<size_t>(token) * heads + head) * p.head_dim;
  const float* gain = is_query ? p.q_gain : is_value ? nullptr : p.k_gain;
  float scale = 1.0f;
  if (gain != nullptr) {
    float squares = 0.0f;
    for (int d = lane; d < p.head_dim; d += 32) squares += x[d] * x[d];
    scale = rsqrtf(warp_sum(squares) / p.head_dim + (is_query ? p.q_eps : p.k_eps));
  }
  __nv_bfloat16* out = target(p, token, head);
  if (out == nullptr) return;
  const int half = is_value ? 0 : p.rotary_dim / 2;
  const size_t angles = static_cast<size_t>(p.positions[token]) * half;
  for (int pair = lane; pair < half; pair += 32) {
    const float a = x[pair] * scale * (gain != nullptr ? gain[pair] : 1.0f);
    const float b = x[pair + half] * scale * (gain != nullptr ? gain[pair + half] : 1.0f);
    const float cos = p.cos[angles + pair], sin = p.sin[angles + pair];
    out[pair] = __float2bfloat16(a * cos - b * sin);
    out[pair + half] = __float2bfloat16(b * cos + a * sin);
  }
  for (int d = 2 * half + lane; d < p.head_dim; d += 32) {
    out[d] = __float2bfloat16(x[d] * scale * (gain != nullptr ? gain[d] : 1.0f));
  }
}
