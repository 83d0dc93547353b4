// Causal attention over the paged cache, for any mix of prefill chunks and single tokens.
//
//   q [T, Hq D] bf16, cache [block, K then V, Hkv, block_size, D] bf16, block tables  ->  out [T, Hq D] bf16
//   rows      a (token, query head of the group) pair is a row: the heads that share a key head fill the tensor core's 16 rows
//   schedule  spans of 256 absolute positions, each reduced alone by tiles of 32 in order, then merged in order: the same bits
//             whether one block walks all spans (attend_*) or each has a block of its own (attend_span_*, then merge_spans)
//   tiling    a warp 16 rows; attend_* four warps that share the tiles in shared memory, attend_span_* one warp a span
//   roofline  decode: bytes of the context's K and V / DRAM bandwidth;  prefill: 4 D flop a row and position / bf16 peak
#include "vectors.cuh"

constexpr int TILE = 32;
constexpr int SPAN = 256;
constexpr float LOG2_E = 1.4426950408889634f;

struct Attention {
  const __nv_bfloat16* q;
  const __nv_bfloat16* cache;  // of one layer
  __nv_bfloat16* out;
  float* spans;  // [T Hq, num_spans, 2 + D]: largest score, sum of weights, weighted values; attend_span_* and merge_spans
  const uint32_t* positions;
  const uint32_t* cu_seqlens;
  const uint32_t* block_tables;
  int num_heads, num_kv_heads, block_size, stride, num_spans;
  int window;     // tokens visible, itself included
  float scale;    // of scores
  float softcap;  // 0 for none
};

// One warp's 16 rows of one key head of one sequence.
struct Rows {
  int seq, kv_head, group, first, count;  // `count` rows of the sequence there are, from `first` on 16 are the warp's
  const uint32_t* positions;              // of the sequence's tokens

  __device__ __forceinline__ int token(int row) const { return min(row, count - 1) / group; }
  __device__ __forceinline__ int position(int row) const { return positions[token(row)]; }
};

// A reduction of some positions for two of a thread's rows: the fragment's rows lane / 4 and lane / 4 + 8.
template <int D>
struct Partial {
  float max[2], sum[2], values[D / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int half = 0; half < 2; half++) max[half] = -INFINITY, sum[half] = 0.0f;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
      for (int idx = 0; idx < 4; idx++) values[n][idx] = 0.0f;
    }
  }
};

// How two neighbouring reductions become one: the factors of the earlier and the later.
__device__ __forceinline__ float2 merge_factors(float earlier, float later, float& max) {
  if (later == -INFINITY) return make_float2(1.0f, 0.0f);
  max = fmaxf(earlier, later);
  return make_float2(exp2f(earlier - max), exp2f(later - max));
}

__device__ __forceinline__ float merged(float earlier, float later, float2 factors) {
  return __fmaf_rn(later, factors.y, __fmul_rn(earlier, factors.x));
}

template <int D>
__device__ __forceinline__ void merge(Partial<D>& total, const Partial<D>& later) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float2 factors = merge_factors(total.max[half], later.max[half], total.max[half]);
    if (factors.y == 0.0f && factors.x == 1.0f) continue;
    total.sum[half] = merged(total.sum[half], later.sum[half], factors);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
      for (int idx = half * 2; idx < half * 2 + 2; idx++) {
        total.values[n][idx] = merged(total.values[n][idx], later.values[n][idx], factors);
      }
    }
  }
}

// Bytes of a tile of K or of V: rows are padded by 16 bytes, so that eight rows of a matrix lie in different banks.
template <int D>
constexpr int ROW_BYTES = D * 2 + 16;
template <int D>
constexpr int TILE_BYTES = TILE * ROW_BYTES<D>;

// Asks for K and V of positions `tile .. tile + TILE`; zeros outside `from .. to`, as memory there may hold anything.
template <int D, int WARPS>
__device__ __forceinline__ void load_kv(const Attention& p, const Rows& rows, unsigned char* stage, int tile, int from, int to) {
  constexpr int CHUNKS = D / 8;
  const uint32_t* table = p.block_tables + static_cast<size_t>(rows.seq) * p.stride;
  const size_t head_size = static_cast<size_t>(p.block_size) * D;
  for (int at = threadIdx.x; at < TILE * CHUNKS; at += WARPS * 32) {
    const int key = at / CHUNKS, chunk = at % CHUNKS, position = tile + key;
    const bool inside = position >= from && position < to;
    const size_t block = inside ? table[position / p.block_size] : 0;
    const size_t head = (block * 2 * p.num_kv_heads + rows.kv_head) * head_size;
    const __nv_bfloat16* k = p.cache + head + (inside ? position % p.block_size * D : 0) + chunk * 8;
    unsigned char* to_k = stage + key * ROW_BYTES<D> + chunk * 16;
    cp_async16(to_k, k, inside);
    cp_async16(to_k + TILE_BYTES<D>, k + p.num_kv_heads * head_size, inside);
  }
  cp_async_commit();
}

// The warp's queries as fragments.
template <int D>
__device__ __forceinline__ void load_q(const Attention& p, const Rows& rows, int first_token, uint32_t (&q)[D / 16][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = min(rows.first + half * 8 + lane / 4, rows.count - 1);
    const size_t head = static_cast<size_t>(first_token + row / rows.group) * p.num_heads + rows.kv_head * rows.group + row % rows.group;
    const uint32_t* from = reinterpret_cast<const uint32_t*>(p.q + head * D);
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
      q[step][half] = from[step * 8 + lane % 4];
      q[step][half + 2] = from[step * 8 + 4 + lane % 4];
    }
  }
}

// Takes one tile of positions into `partial`.
template <int D>
__device__ __forceinline__ void attend_tile(const Attention& p, const Rows& rows, const uint32_t (&q)[D / 16][4],
                                            const unsigned char* stage, int tile, Partial<D>& partial) {
  const int lane = threadIdx.x % 32;
  float scores[TILE / 8][4] = {};
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
#pragma unroll
    for (int n = 0; n < TILE / 16; n++) {
      uint32_t k[4];
      ldmatrix_x4(k, stage + (n * 16 + lane / 16 * 8 + lane % 8) * ROW_BYTES<D> + (step * 2 + lane / 8 % 2) * 16);
      const uint32_t first[2] = {k[0], k[1]}, second[2] = {k[2], k[3]};
      mma_m16n8k16_bf16(scores[n * 2], q[step], first);
      mma_m16n8k16_bf16(scores[n * 2 + 1], q[step], second);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int position = rows.position(rows.first + half * 8 + lane / 4), oldest = position - p.window;
    float max = partial.max[half];
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
      for (int idx = half * 2; idx < half * 2 + 2; idx++) {
        const int key = tile + n * 8 + lane % 4 * 2 + idx % 2;
        float score = scores[n][idx] * p.scale;
        if (p.softcap > 0.0f) score = p.softcap * tanhf(score / p.softcap);
        scores[n][idx] = key <= position && key > oldest ? score * LOG2_E : -INFINITY;
        max = fmaxf(max, scores[n][idx]);
      }
    }
    max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 1));
    max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 2));
    const float finite = max == -INFINITY ? 0.0f : max, fade = exp2f(partial.max[half] - finite);
    partial.max[half] = max;
    partial.sum[half] *= fade;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
      for (int idx = half * 2; idx < half * 2 + 2; idx++) {
        scores[n][idx] = exp2f(scores[n][idx] - finite);
        partial.sum[half] += scores[n][idx];
      }
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      partial.values[n][half * 2] *= fade;
      partial.values[n][half * 2 + 1] *= fade;
    }
  }
#pragma unroll
  for (int step = 0; step < TILE / 16; step++) {
    const float *low = scores[step * 2], *high = scores[step * 2 + 1];
    const uint32_t weights[4] = {pack_bf16(low[0], low[1]), pack_bf16(low[2], low[3]), pack_bf16(high[0], high[1]),
                                 pack_bf16(high[2], high[3])};
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t v[4];
      ldmatrix_x4_trans(v, stage + TILE_BYTES<D> + (step * 16 + lane % 16) * ROW_BYTES<D> + (n * 2 + lane / 16) * 16);
      const uint32_t first[2] = {v[0], v[1]}, second[2] = {v[2], v[3]};
      mma_m16n8k16_bf16(partial.values[n * 2], weights, first);
      mma_m16n8k16_bf16(partial.values[n * 2 + 1], weights, second);
    }
  }
}

// Reduces positions `start .. end`, within one span, to `partial`; the stages are free afterwards.
template <int D, int WARPS>
__device__ __forceinline__ void attend_span(const Attention& p, const Rows& rows, const uint32_t (&q)[D / 16][4],
                                            unsigned char* ring, int start, int end, Partial<D>& partial) {
  partial.clear();
  const int first = start / TILE, last = (end + TILE - 1) / TILE;
  load_kv<D, WARPS>(p, rows, ring, first * TILE, start, end);
  for (int tile = first; tile < last; tile++) {
    unsigned char* next = ring + (tile + 1 - first) % 2 * 2 * TILE_BYTES<D>;
    if (tile + 1 < last) {
      load_kv<D, WARPS>(p, rows, next, (tile + 1) * TILE, start, end);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    attend_tile<D>(p, rows, q, ring + (tile - first) % 2 * 2 * TILE_BYTES<D>, tile * TILE, partial);
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    partial.sum[half] += __shfl_xor_sync(FULL_WARP, partial.sum[half], 1);
    partial.sum[half] += __shfl_xor_sync(FULL_WARP, partial.sum[half], 2);
  }
}

// The block's rows, and the positions that any of them sees.
template <int WARPS>
struct Work {
  Rows rows;
  int first_token, start, end;

  __device__ __forceinline__ explicit Work(const Attention& p) {
    rows.seq = blockIdx.y / p.num_kv_heads;
    rows.kv_head = blockIdx.y % p.num_kv_heads;
    rows.group = p.num_heads / p.num_kv_heads;
    first_token = p.cu_seqlens[rows.seq];
    rows.count = (p.cu_seqlens[rows.seq + 1] - first_token) * rows.group;
    rows.positions = p.positions + first_token;
    const int block_first = blockIdx.x * WARPS * 16;
    rows.first = block_first + threadIdx.x / 32 * 16;
    start = end = 0;
    if (block_first >= rows.count) return;
    end = rows.position(block_first + WARPS * 16 - 1) + 1;
    start = max(0, rows.position(block_first) + 1 - p.window);
  }
};

template <int D>
__device__ __forceinline__ void put_rows(const Attention& p, const Rows& rows, int first_token, const Partial<D>& total) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = rows.first + half * 8 + lane / 4;
    if (row >= rows.count) continue;
    const size_t head = static_cast<size_t>(first_token + row / rows.group) * p.num_heads + rows.kv_head * rows.group + row % rows.group;
    uint32_t* out = reinterpret_cast<uint32_t*>(p.out + head * D);
    const float inverse = 1.0f / total.sum[half];
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n * 4 + lane % 4] = pack_bf16(total.values[n][half * 2] * inverse, total.values[n][half * 2 + 1] * inverse);
    }
  }
}

template <int D, int WARPS>
__device__ __forceinline__ void attend(const Attention& p) {
  DYN_SMEM(ring);
  const Work<WARPS> work(p);
  if (work.end == 0) return;
  uint32_t q[D / 16][4];
  load_q<D>(p, work.rows, work.first_token, q);
  Partial<D> total, partial;
  total.clear();
  for (int span = work.start / SPAN; span * SPAN < work.end; span++) {
    attend_span<D, WARPS>(p, work.rows, q, ring, max(work.start, span * SPAN), min(work.end, (span + 1) * SPAN), partial);
    merge(total, partial);
  }
  put_rows(p, work.rows, work.first_token, total);
}

template <int D>
__device__ __forceinline__ void attend_one_span(const Attention& p) {
  DYN_SMEM(ring);
  const Work<1> work(p);
  const int span = blockIdx.z, lane = threadIdx.x % 32;
  if (work.end <= span * SPAN || work.start >= (span + 1) * SPAN) return;
  uint32_t q[D / 16][4];
  load_q<D>(p, work.rows, work.first_token, q);
  Partial<D> partial;
  attend_span<D, 1>(p, work.rows, q, ring, max(work.start, span * SPAN), min(work.end, (span + 1) * SPAN), partial);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = work.rows.first + half * 8 + lane / 4, group = work.rows.group;
    if (row >= work.rows.count) continue;
    const size_t head = static_cast<size_t>(work.first_token + row / group) * p.num_heads + work.rows.kv_head * group + row % group;
    float* record = p.spans + (head * p.num_spans + span) * (D + 2);
    if (lane % 4 == 0) record[0] = partial.max[half], record[1] = partial.sum[half];
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      record[2 + n * 8 + lane % 4 * 2] = partial.values[n][half * 2];
      record[2 + n * 8 + lane % 4 * 2 + 1] = partial.values[n][half * 2 + 1];
    }
  }
}

// One block of D threads a token and head, [T, Hq].
template <int D>
__device__ __forceinline__ void merge_rows(const Attention& p) {
  const int position = p.positions[blockIdx.x], d = threadIdx.x;
  const size_t head = static_cast<size_t>(blockIdx.x) * p.num_heads + blockIdx.y;
  float max = -INFINITY, sum = 0.0f, value = 0.0f;
  for (int span = ::max(0, position + 1 - p.window) / SPAN; span * SPAN <= position; span++) {
    const float* record = p.spans + (head * p.num_spans + span) * (D + 2);
    const float2 factors = merge_factors(max, record[0], max);
    if (factors.y == 0.0f && factors.x == 1.0f) continue;
    sum = merged(sum, record[1], factors);
    value = merged(value, record[2 + d], factors);
  }
  p.out[head * D + d] = __float2bfloat16(value * (1.0f / sum));
}

#define INSTANCES(D)                                                                                            \
  extern "C" __global__ void __launch_bounds__(128) attend_##D(const Attention p) { attend<D, 4>(p); }           \
  extern "C" __global__ void __launch_bounds__(32) attend_span_##D(const Attention p) { attend_one_span<D>(p); } \
  extern "C" __global__ void __launch_bounds__(D) merge_spans_##D(const Attention p) { merge_rows<D>(p); }

INSTANCES(16)
INSTANCES(32)
INSTANCES(64)
INSTANCES(128)
