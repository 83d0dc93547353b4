// Splits fused qkv rows, normalizes q and k per head where there are gains, rotates them, and writes k and v to the cache.
//
//   qkv [T, (Hq + 2 Hkv) D] f32, cos and sin [max_len, rotary_dim / 2] f32, positions and slots [T]
//   ->  q [T, Hq D] bf16;  cache [block, K then V, Hkv, block_size, D] bf16 or e4m3 at slot = block * block_size + offset
//   tiling    a warp a head, four heads a block;  any even D
//   roofline  bytes of qkv, q and the slots / DRAM bandwidth
// Where every sequence has one token, attention does the same on its way (paged_attention.cuh).
#include "rope_head.cuh"

template <class Kv>
__device__ __forceinline__ void split_row(const RopeWrite& p) {
  after_former_kernel();
  const int token = blockIdx.x, head = blockIdx.y * 4 + threadIdx.x / 32;
  if (head >= p.num_heads + 2 * p.num_kv_heads) return;
  if (head >= p.num_heads) return write_kv<Kv>(p, token, head);
  __nv_bfloat16* q = p.q + (static_cast<size_t>(token) * p.num_heads + head) * p.head_dim;
  rope_head(p, token, head, [=](int d, float x) { q[d] = __float2bfloat16(x); });
}

extern "C" __global__ void __launch_bounds__(128) rope_write(const RopeWrite p) { split_row<__nv_bfloat16>(p); }
extern "C" __global__ void __launch_bounds__(128) rope_write_fp8(const RopeWrite p) { split_row<__nv_fp8_e4m3>(p); }
