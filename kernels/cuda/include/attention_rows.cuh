// What a block of attention works on, and what comes of it: its rows, its part of the cache, reductions and how they merge.
#pragma once

#include "kv_fragments.cuh"
#include "rope_head.cuh"
#include "row_peaks.cuh"

constexpr int SPAN = 256;  // positions that are reduced alone
constexpr float LOG2_E = 1.4426950408889634f;

struct Attention {
  RopeWrite rope;  // its qkv is null where queries lie rotated at its q, and keys and values in the cache
  __nv_bfloat16* out;
  float* records;      // [spans, few, Hq, 4 + D]: largest score, sum of weights, weighted values from the fifth on
  uint32_t* arrivals;  // [sequences, Hkv]: zeros, before and after
  const float* sinks;  // [Hq]; null where there are none
  const uint32_t* cu_seqlens;  // [sequences + 1]: tokens before each
  const uint32_t* cu_spans;    // and spans up to each one's last position
  const uint32_t* block_tables;
  uint32_t* peaks;  // of the tokens' rows, where they are few and wanted: row_peaks.cuh
  int sequences, stride;
  int few;        // sequences of up to so many tokens are attend_span's, the others attend's
  int window;     // tokens visible, itself included
  float scale;    // of scores, K's own among it
  float softcap;  // 0 for none
  float v_scale;
};

// Wide heads take more of shared memory and registers a row.
template <int D>
constexpr int THREADS = D > 128 ? 64 : 128;

// How a block lies in shared memory: a ring of `STAGES` tiles of K and V, then the queries, then a float for each sum of a thread.
template <class Kv, int D, int STAGES>
struct Layout {
  static constexpr int ROWS = THREADS<D> / 2;
  static constexpr int KV_ROW = Fragments<Kv, D>::ROW, Q_ROW = ROW_BYTES<2 * D>;
  static constexpr int STAGE = 2 * TILE * KV_ROW, QUERIES = STAGES * STAGE;
  static constexpr bool Q_STAYS = D <= 128;  // in registers: sums may lie over them
  static constexpr int SUMS = Q_STAYS ? QUERIES : QUERIES + ROWS * Q_ROW;
};

// The last of `sequences` that starts at or before `at`, where each starts behind the one before and the first at 0: a warp's lanes look
// at 32 of them at once.
template <class Start>
__device__ __forceinline__ int sequence_at(int sequences, int at, Start start) {
  int first = 0;
  for (int count = sequences; count > 1;) {
    const int step = (count + 31) / 32, probe = threadIdx.x % 32 * step;
    const int passed = __popc(__ballot_sync(FULL_WARP, probe < count && start(first + probe) <= at)) - 1;
    first += passed * step;
    count = min(step, count - passed * step);
  }
  return first;
}

// The rows (token, query head of the group) that a block takes of one key head of one sequence, and those of the thread: the
// fragment's rows lane / 4 and lane / 4 + 8 of its warp's 16.
template <int ROWS>
struct Work {
  int seq, kv_head, group, first_token, count;  // `count` rows of the sequence there are
  int block_first, warp_first;
  int position[2];     // of the thread's rows; of the last there is where they are beyond
  int start, end;      // positions that any row of the block sees
  int warp_start, warp_end;  // and any of the warp; none where it has no rows

  // Tiles of rows lie in a row, for each sequence as many as it may need wherever its tokens begin: one is idle at most.
  static __device__ __forceinline__ Work of_tile(const Attention& p, int at) {
    const int group = p.rope.num_heads / p.rope.num_kv_heads;
    const auto first = [&](int seq) { return static_cast<int>(p.cu_seqlens[seq]) * group / ROWS + seq; };
    const int seq = sequence_at(p.sequences, at, first);
    return Work(p, seq, at - first(seq));
  }
  // So do spans of sequences whose rows are one tile.
  static __device__ __forceinline__ Work of_span(const Attention& p, int at) {
    return Work(p, sequence_at(p.sequences, at, [&](int seq) { return static_cast<int>(p.cu_spans[seq]); }), 0);
  }

  __device__ __forceinline__ Work(const Attention& p, int of_seq, int tile) {
    const RopeWrite& r = p.rope;
    seq = of_seq;
    kv_head = blockIdx.y;
    group = r.num_heads / r.num_kv_heads;
    first_token = p.cu_seqlens[seq];
    count = (p.cu_seqlens[seq + 1] - first_token) * group;
    block_first = tile * ROWS;
    warp_first = block_first + threadIdx.x / 32 * 16;
    start = end = warp_start = warp_end = 0;
    if (block_first >= count) return;
    const auto at = [&](int row) { return static_cast<int>(r.positions[first_token + min(row, count - 1) / group]); };
    const int lane = threadIdx.x % 32;
    position[0] = at(warp_first + lane / 4), position[1] = at(warp_first + lane / 4 + 8);
    start = max(0, at(block_first) + 1 - p.window), end = at(block_first + ROWS - 1) + 1;
    if (warp_first >= count) return;
    warp_start = max(0, at(warp_first) + 1 - p.window), warp_end = at(warp_first + 15) + 1;
  }

  __device__ __forceinline__ bool is_idle() const { return end == 0; }
  __device__ __forceinline__ bool is_of_few(const Attention& p) const { return count <= p.few * group; }
  // Of the block's rows, as they lie in [T, Hq].
  __device__ __forceinline__ int num_rows() const { return min(ROWS, count - block_first); }
  __device__ __forceinline__ int token(int row) const { return first_token + row / group; }
  __device__ __forceinline__ size_t head(const Attention& p, int row) const {
    return static_cast<size_t>(token(row)) * p.rope.num_heads + kv_head * group + row % group;
  }
  template <int D>
  __device__ __forceinline__ float* record(const Attention& p, int row, int span) const {
    const size_t token = static_cast<size_t>(p.cu_spans[seq] + span) * p.few + row / group;
    return p.records + (token * p.rope.num_heads + kv_head * group + row % group) * (D + 4);
  }
  // Calls `use(half, row)` for the thread's rows that there are.
  template <class Use>
  __device__ __forceinline__ void for_rows(Use use) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = warp_first + half * 8 + threadIdx.x % 32 / 4;
      if (row < count) use(half, row);
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

// What the weighted values of a query head are multiplied by: one over the sum of weights, a sink's among them.
__device__ __forceinline__ float normalizer(const Attention& p, int head, float max, float sum) {
  if (p.sinks == nullptr) return p.v_scale / sum;
  const float sink = __fmul_rn(p.sinks[head], LOG2_E), peak = fmaxf(max, sink), fade = exp2f(max - peak);
  return __fmul_rn(p.v_scale, fade) / __fmaf_rn(sum, fade, exp2f(sink - peak));
}

// A reduction of some positions for a thread's two rows.
template <int D>
struct Partial {
  float max[2], sum[2], values[D / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int half = 0; half < 2; half++) max[half] = -INFINITY, sum[half] = 0.0f;
#pragma unroll
    for (int at = 0; at < D / 2; at++) values[at / 4][at % 4] = 0.0f;
  }

  // The four lanes of a row have weighed different positions.
  __device__ __forceinline__ void share_sums() {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      sum[half] = __fadd_rn(sum[half], __shfl_xor_sync(FULL_WARP, sum[half], 1));
      sum[half] = __fadd_rn(sum[half], __shfl_xor_sync(FULL_WARP, sum[half], 2));
    }
  }
};

// The reductions of all spans so far: the thread's own floats in shared memory, as they are touched once a span.
template <int D>
struct Total {
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
  float* values;

  __device__ __forceinline__ explicit Total(unsigned char* sums) : values(reinterpret_cast<float*>(sums) + threadIdx.x) {}

  // `partial` becomes what there is with the span that it reduced.
  __device__ __forceinline__ void take(Partial<D>& partial, bool is_first) {
    float2 factors[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      factors[half] = merge_factors(max[half], partial.max[half], max[half]);
      partial.max[half] = max[half];
      partial.sum[half] = sum[half] = merged(sum[half], partial.sum[half], factors[half]);
    }
#pragma unroll
    for (int at = 0; at < D / 2; at++) {
      float& value = partial.values[at / 4][at % 4];
      const float earlier = is_first ? 0.0f : values[at * THREADS<D>];
      values[at * THREADS<D>] = value = merged(earlier, value, factors[at % 4 / 2]);
    }
  }
};

template <class Kv, int D, int ROWS>
__device__ __forceinline__ void put_rows(const Attention& p, const Work<ROWS>& work, const Partial<D>& total) {
  work.for_rows([&](int half, int row) {
    const size_t head = work.head(p, row);
    const float factor = normalizer(p, head % p.rope.num_heads, total.max[half], total.sum[half]);
    uint32_t* out = reinterpret_cast<uint32_t*>(p.out + head * D);
    uint32_t largest = 0;
    Fragments<Kv, D>::pairs(total.values, half, [&](int column, float a, float b) {
      const uint32_t pair = pack_bf16(__fmul_rn(a, factor), __fmul_rn(b, factor));
      out[column / 2] = pair;
      largest = max(largest, pair_magnitude(pair));
    });
    if (p.peaks != nullptr) raise_peak(p.peaks, head, work.token(row), largest);
  });
}

// Rows of padding attend to nothing.
template <int D, int ROWS>
__device__ __forceinline__ void put_zeros(const Attention& p, const Work<ROWS>& work) {
  for (int at = threadIdx.x; at < work.num_rows() * D; at += THREADS<D>) {
    p.out[work.head(p, work.block_first + at / D) * D + at % D] = __float2bfloat16(0.0f);
  }
}
