// Causal attention over the paged cache, for any mix of prefill chunks and single tokens.
//
//   q [T, Hq D] bf16, cache [block, K then V, Hkv, block_size, D] bf16 or e4m3, block tables  ->  out [T, Hq D] bf16
//   or, where every sequence has one token (a decode step), rows of qkv instead of q: each block rotates its queries on its way,
//   and the one that sees the new position writes K and V first
//   rows      a (token, query head of the group) pair is a row: the heads that share a key head fill the tensor core's 16 rows
//             (of 16, a group of 1 leaves 15 idle: decode waits for memory, not for them; in prefill, tokens fill the rows)
//   schedule  spans of 256 absolute positions, each reduced alone by tiles of 32 in order, then merged in order: the same bits
//             whether one block walks all spans (attend) or each has a block of its own (attend_span), whose last merges them. A step
//             may have both: its sequences of few tokens are split, the others walked
//   grid      blocks find their sequence themselves, [tokens * group / 64 + sequences, Hkv] and [spans, Hkv] of them: about as many as
//             there is work, and for the host to know without a look at the sequences
//   tiling    a warp 16 rows, 64 a block (32 for heads wider than 128), which share tiles of K and V through a ring of cp.async;
//             where rows are few, the other warps load and merge. All spans' sums lie in shared memory: registers hold one span's
//   roofline  decode: bytes of the context's K and V / DRAM bandwidth
//             prefill: 4 D flop a row and position / bf16 peak of mma.sync; K and V are read once for 64 rows, so for 64 flop a
//             byte of bf16 from level 2, and fragments 256 bytes a product of 16 x 8 x 16 from shared memory: with 64 rows neither
//             bounds it below half of the tensor cores' peak. Tiles that no row of a warp sees cost it no arithmetic
//   tried     sums of all spans in registers: 255 of them at D = 128, and one block a multiprocessor less
#pragma once

#include "attention_rows.cuh"

// Asks for K and V of positions `tile .. tile + TILE`; zeros outside `from .. to`, as memory there may hold anything.
template <class Kv, int D, int ROWS>
__device__ __forceinline__ void load_kv(const Attention& p, const Work<ROWS>& work, unsigned char* stage, int tile, int from, int to) {
  constexpr int BYTES = D * sizeof(Kv), CHUNKS = BYTES / 16, ROW = Fragments<Kv, D>::ROW;
  const uint32_t* table = p.block_tables + static_cast<size_t>(work.seq) * p.stride;
  const unsigned char* cache = static_cast<const unsigned char*>(p.rope.cache);
  const size_t head_bytes = static_cast<size_t>(p.rope.block_size) * BYTES;
  for (int at = threadIdx.x; at < TILE * CHUNKS; at += THREADS<D>) {
    const int key = at / CHUNKS, chunk = at % CHUNKS, position = tile + key;
    const bool inside = position >= from && position < to;
    const size_t block = inside ? table[position / p.rope.block_size] : 0;
    const int offset = inside ? position % p.rope.block_size : 0;
    const unsigned char* k = cache + (block * 2 * p.rope.num_kv_heads + work.kv_head) * head_bytes + offset * BYTES + chunk * 16;
    unsigned char* to_k = stage + key * ROW + chunk * 16;
    cp_async16(to_k, k, inside);
    cp_async16(to_k + TILE * ROW, k + p.rope.num_kv_heads * head_bytes, inside);
  }
}

// Asks for the block's queries.
template <int D, int ROWS>
__device__ __forceinline__ void load_queries(const Attention& p, const Work<ROWS>& work, unsigned char* queries) {
  constexpr int CHUNKS = D / 8;
  for (int at = threadIdx.x; at < work.num_rows() * CHUNKS; at += THREADS<D>) {
    const int row = at / CHUNKS, chunk = at % CHUNKS;
    cp_async16(queries + row * ROW_BYTES<2 * D> + chunk * 16, p.rope.q + work.head(p, work.block_first + row) * D + chunk * 8);
  }
}

// Rotates the queries of the sequence's one token to shared memory, a warp a head; and its K and V to the cache.
template <class Kv, int D, int ROWS>
__device__ __forceinline__ void rotate(const Attention& p, const Work<ROWS>& work, bool writes, unsigned char* queries) {
  const RopeWrite& r = p.rope;
  for (int head = threadIdx.x / 32; head < work.group + (writes ? 2 : 0); head += THREADS<D> / 32) {
    if (head < work.group) {
      __nv_bfloat16* row = reinterpret_cast<__nv_bfloat16*>(queries + head * ROW_BYTES<2 * D>);
      rope_head(r, work.first_token, work.kv_head * work.group + head, [=](int d, float x) { row[d] = __float2bfloat16(x); });
    } else {
      write_kv<Kv>(r, work.first_token, r.num_heads + (head - work.group) * r.num_kv_heads + work.kv_head);
    }
  }
}

// Scores of one tile, as powers of two, weighed against the largest so far; what was summed before fades.
template <int D, int ROWS>
__device__ __forceinline__ void soften(const Attention& p, const Work<ROWS>& work, int tile, float (&scores)[TILE / 8][4],
                                       Partial<D>& partial) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int position = work.position[half], oldest = position - p.window;
    float max = partial.max[half];
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
      for (int idx = half * 2; idx < half * 2 + 2; idx++) {
        const int key = tile + n * 8 + threadIdx.x % 4 * 2 + idx % 2;
        float score = __fmul_rn(scores[n][idx], p.scale);
        if (p.softcap > 0.0f) score = __fmul_rn(p.softcap, tanhf(score / p.softcap));
        scores[n][idx] = key <= position && key > oldest ? __fmul_rn(score, LOG2_E) : -INFINITY;
        max = fmaxf(max, scores[n][idx]);
      }
    }
    max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 1));
    max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 2));
    const float finite = max == -INFINITY ? 0.0f : max, fade = exp2f(__fsub_rn(partial.max[half], finite));
    partial.max[half] = max;
    partial.sum[half] = __fmul_rn(partial.sum[half], fade);
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
      for (int idx = half * 2; idx < half * 2 + 2; idx++) {
        scores[n][idx] = exp2f(__fsub_rn(scores[n][idx], finite));
        partial.sum[half] = __fadd_rn(partial.sum[half], scores[n][idx]);
      }
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      partial.values[n][half * 2] *= fade;
      partial.values[n][half * 2 + 1] *= fade;
    }
  }
}

// Takes one tile of positions into `partial`; `queries(step)` yields the warp's fragments.
template <class Kv, int D, int ROWS, class Queries>
__device__ __forceinline__ void attend_tile(const Attention& p, const Work<ROWS>& work, Queries queries, const unsigned char* stage,
                                            int tile, Partial<D>& partial) {
  float scores[TILE / 8][4] = {};
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    uint32_t q[4], k[TILE / 8][2];
    queries(q, step);
    Fragments<Kv, D>::keys(k, stage, step);
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) mma_m16n8k16_bf16(scores[n], q, k[n]);
  }
  soften<D>(p, work, tile, scores, partial);
  uint32_t weights[TILE / 16][4];
#pragma unroll
  for (int step = 0; step < TILE / 16; step++) {
    const float *low = scores[step * 2], *high = scores[step * 2 + 1];
    weights[step][0] = pack_bf16(low[0], low[1]), weights[step][1] = pack_bf16(low[2], low[3]);
    weights[step][2] = pack_bf16(high[0], high[1]), weights[step][3] = pack_bf16(high[2], high[3]);
  }
#pragma unroll
  for (int n = 0; n < D / 16; n++) {
    uint32_t v[TILE / 16][2][2];
    Fragments<Kv, D>::values(v, stage + TILE * Fragments<Kv, D>::ROW, n);
#pragma unroll
    for (int step = 0; step < TILE / 16; step++) {
      mma_m16n8k16_bf16(partial.values[n * 2], weights[step], v[step][0]);
      mma_m16n8k16_bf16(partial.values[n * 2 + 1], weights[step], v[step][1]);
    }
  }
}

// Reduces positions `start .. end` by spans, and calls `on_span(partial)` after each. `writes`: K and V of the last one too.
template <class Kv, int D, int STAGES, class OnSpan>
__device__ __forceinline__ void walk(const Attention& p, const Work<THREADS<D> / 2>& work, int start, int end, bool writes,
                                     unsigned char* shared, OnSpan on_span) {
  using At = Layout<Kv, D, STAGES>;
  unsigned char* const queries = shared + At::QUERIES;
  const int first = start / TILE, last = (end + TILE - 1) / TILE;
  const auto load = [&](int tile) {
    if (tile < last) load_kv<Kv, D>(p, work, shared + (tile - first) % STAGES * At::STAGE, tile * TILE, start, end);
    cp_async_commit();
  };
  const auto prefetch = [&] {
    for (int tile = first; tile < first + STAGES - 1; tile++) load(tile);
  };
  // What nobody writes now is on its way while queries rotate.
  const bool rotates = p.rope.qkv != nullptr, early = !rotates || !writes || (first + STAGES - 1) * TILE < end;
  if (!rotates) load_queries<D>(p, work, queries);
  cp_async_commit();
  if (early) prefetch();
  if (rotates) {
    rotate<Kv, D>(p, work, writes, queries);
    __syncthreads();
  }
  if (!early) prefetch();
  cp_async_wait<STAGES - 1>();  // queries are the oldest group
  __syncthreads();
  const unsigned char* const rows = queries + threadIdx.x / 32 * 16 * At::Q_ROW;
  uint32_t q[At::Q_STAYS ? D / 16 : 1][4];
  if constexpr (At::Q_STAYS) {
#pragma unroll
    for (int step = 0; step < D / 16; step++) Fragments<Kv, D>::queries(q[step], rows, step);
  }
  const auto fragment = [&](uint32_t(&of)[4], int step) {
    if constexpr (At::Q_STAYS) {
#pragma unroll
      for (int idx = 0; idx < 4; idx++) of[idx] = q[step][idx];
    } else {
      Fragments<Kv, D>::queries(of, rows, step);
    }
  };
  Partial<D> partial;
  for (int tile = first; tile < last; tile++) {
    load(tile + STAGES - 1);
    cp_async_wait<STAGES - 1>();
    __syncthreads();
    if (tile == first || tile * TILE % SPAN == 0) partial.clear();
    if (tile * TILE < work.warp_end && (tile + 1) * TILE > work.warp_start) {
      attend_tile<Kv, D>(p, work, fragment, shared + (tile - first) % STAGES * At::STAGE, tile * TILE, partial);
    }
    if (tile + 1 == last || (tile + 1) * TILE % SPAN == 0) {
      partial.share_sums();
      on_span(partial);
    }
    __syncthreads();
  }
}

template <class Kv, int D>
constexpr int STAGES_OF_WALK = 2 * TILE * Fragments<Kv, D>::ROW > 20000 ? 1 : 2;

// One block for all spans of its rows.
template <class Kv, int D>
__device__ __forceinline__ void attend(const Attention& p) {
  after_former_kernel();
  constexpr int STAGES = STAGES_OF_WALK<Kv, D>;
  DYN_SMEM(shared);
  const auto work = Work<THREADS<D> / 2>::of_tile(p, blockIdx.x);
  if (work.is_idle() || work.is_of_few(p)) return;
  if (p.rope.qkv != nullptr && p.rope.slots[work.first_token] == SKIP) return put_zeros<D>(p, work);
  Total<D> total(shared + Layout<Kv, D, STAGES>::SUMS);
  int span = work.start / SPAN;
  walk<Kv, D, STAGES>(p, work, work.start, work.end, true, shared, [&](Partial<D>& partial) {
    total.take(partial, span == work.start / SPAN);
    span++;
    if (span * SPAN >= work.end) put_rows<Kv, D>(p, work, partial);
  });
}

// Whether this is the last of `expected` blocks to come here, which then sees what the others wrote. The counter ends at zero.
__device__ __forceinline__ bool is_last(uint32_t* arrivals, uint32_t expected) {
  SMEM_ARRAY(uint32_t, arrived, 1);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) arrived[0] = atomicInc(arrivals, expected - 1);
  __syncthreads();
  __threadfence();
  return arrived[0] == expected - 1;
}

// Merges the records of the block's rows: four columns of one at a time.
template <int D, int ROWS>
__device__ __forceinline__ void merge_records(const Attention& p, const Work<ROWS>& work) {
  for (int at = threadIdx.x; at < work.num_rows() * (D / 4); at += THREADS<D>) {
    const int row = work.block_first + at / (D / 4), column = at % (D / 4) * 4, position = p.rope.positions[work.token(row)];
    const size_t head = work.head(p, row);
    float max = -INFINITY, sum = 0.0f;
    float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (int span = ::max(0, position + 1 - p.window) / SPAN; span * SPAN <= position; span++) {
      const float* record = work.template record<D>(p, row, span);
      const float4 values = *reinterpret_cast<const float4*>(record + 4 + column);
      const float2 factors = merge_factors(max, record[0], max);
      sum = merged(sum, record[1], factors);
      total.x = merged(total.x, values.x, factors), total.y = merged(total.y, values.y, factors);
      total.z = merged(total.z, values.z, factors), total.w = merged(total.w, values.w, factors);
    }
    const float factor = normalizer(p, head % p.rope.num_heads, max, sum);
    uint2* out = reinterpret_cast<uint2*>(p.out + head * D + column);
    const uint2 four = make_uint2(pack_bf16(__fmul_rn(total.x, factor), __fmul_rn(total.y, factor)),
                                  pack_bf16(__fmul_rn(total.z, factor), __fmul_rn(total.w, factor)));
    *out = four;
    if (p.peaks != nullptr) raise_peak(p.peaks, head, work.token(row), ::max(pair_magnitude(four.x), pair_magnitude(four.y)));
  }
}

template <class Kv, int D>
constexpr int STAGES_OF_SPAN = 2 * TILE * Fragments<Kv, D>::ROW > 20000 ? 2 : 3;

// One block for one span of its rows; the last to finish merges what all of them left.
template <class Kv, int D>
__device__ __forceinline__ void attend_span(const Attention& p) {
  after_former_kernel();
  DYN_SMEM(shared);
  if (blockIdx.x >= p.cu_spans[p.sequences]) return;
  const auto work = Work<THREADS<D> / 2>::of_span(p, blockIdx.x);
  const int span = blockIdx.x - p.cu_spans[work.seq], first = work.start / SPAN, last = (work.end - 1) / SPAN;
  if (work.is_idle() || !work.is_of_few(p) || span < first || span > last) return;
  if (p.rope.qkv != nullptr && p.rope.slots[work.first_token] == SKIP) return put_zeros<D>(p, work);
  const int start = max(work.start, span * SPAN), end = min(work.end, (span + 1) * SPAN);
  walk<Kv, D, STAGES_OF_SPAN<Kv, D>>(p, work, start, end, span == last, shared, [&](Partial<D>& partial) {
    work.for_rows([&](int half, int row) {
      float* record = work.template record<D>(p, row, span);
      if (threadIdx.x % 4 == 0) record[0] = partial.max[half], record[1] = partial.sum[half];
      Fragments<Kv, D>::pairs(partial.values, half, [&](int column, float a, float b) {
        *reinterpret_cast<float2*>(record + 4 + column) = make_float2(a, b);
      });
    });
  });
  if (is_last(p.arrivals + work.seq * p.rope.num_kv_heads + work.kv_head, last - first + 1)) merge_records<D>(p, work);
}
