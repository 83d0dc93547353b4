// Matrix products of FP8 numbers: y = x W^T, both e4m3 under f32 scales.
//
//   x [M, K], w [N, K] e4m3, K a multiple of 16, N of 8;  or x of bf16, up to 16 rows
//   x scales  one a row, or one a row and 128 k: [K / 128, x_stride], x_stride >= M a multiple of 4; x_stride 0 where all k share the first
//             none of bf16: from its peaks (row_peaks.cuh) one a row, without them one a row and 128 k
//   w scales  meta, one for 2^w_shift outputs, or as many for each 128 k: [K / 128, w_stride]
//   gemm_fp8_*: store, add, glu as in gemm_bf16.cu;  experts_fp8_*: store and glu of a stack of experts
//   schedule  128 k are summed by the tensor cores from zero, 32 at a time; that sum times x's scale times w's is added in f32, ascending
//             (e4m3.cuh says what differs between architectures; gemm_pipeline.cuh how K is split)
//   tiling    as gemm_bf16.cu, with stages of 128 k
//   roofline  few rows: N K bytes / DRAM bandwidth;  many: 2 M N K flop / FP8 peak on sm_89 and sm_120, elsewhere f16's
//   in flight at up to 16 rows: 3 stages of 8 KiB of weights a block, as gemm_bf16.cu
//   x of bf16 is what attention and gated units leave of few rows, which saves a launch (quantize.cu): a thread copies 16 numbers a stage, and
//             makes of them the codes that quantize_rows makes, where codes would have been copied to. All behind that is the same, and so are
//             the bits. 16 rows cost a block about 130 of the 400 clocks that its weights take an H200 to read, and half as many bytes as those
//             from the second-level cache; 64 rows would cost more clocks than the weights. No card has checked this estimate
#include "e4m3.cuh"
#include "experts.cuh"
#include "gemm_pipeline.cuh"

struct Scales {
  const float* x;         // null of bf16
  const uint32_t* peaks;  // of bf16's rows; null where 128 k have a scale
  int x_stride, w_stride, w_shift;
};

struct Fp8 {
  Gemm gemm;
  Scales scales;
};

struct Fp8Experts {
  Experts experts;
  Scales scales;
};

// Asks for `count` scales from `first` on; zeros from `end` on.
__device__ __forceinline__ void load_scales(unsigned char* to, const float* from, int count, int first, int end) {
  if (static_cast<int>(threadIdx.x) < count / 4) {
    const int at = first + threadIdx.x * 4;
    cp_async16(to + threadIdx.x * 16, at < end ? from + at : from, at < end);
  }
}

// `MAKES`: whether x may be of bf16.
template <int ROWS, bool MAKES>
struct Codes {
  using L = Layout<ROWS>;
  static constexpr int TM = ROWS, STAGES = TM == 16 ? 4 : 3;
  // A chunk of 16 numbers of bf16 has its first half where its codes will be. The other halves lie in the threads' order, over the scales of
  // codes; the scale that a row's first thread finds takes its half's place.
  static constexpr int X_SCALES = TM * CHUNKS * 16, W = X_SCALES + (TM == PEAK_ROWS ? X_SCALES : TM * 4);
  static_assert(!MAKES || L::THREADS == TM * CHUNKS, "a thread makes the codes of one chunk");
  static constexpr int W_SCALES = W + L::TN * CHUNKS * 16, STAGE_BYTES = W_SCALES + L::TN * 4;

  const Fp8& p;
  unsigned char* ring;
  const L at;
  const int steps;
  Divisor by{0.0f};  // of the thread's row of bf16, once there is one

  __device__ __forceinline__ Codes(const Fp8& p, unsigned char* ring)
      : p(p), ring(ring), steps((p.gemm.k + 2 * TILE_K - 1) / (2 * TILE_K)) {}

  __device__ __forceinline__ bool is_bf16() const { return MAKES && p.scales.x == nullptr; }

  // A chunk of 16 codes lies as one of 8 numbers of 16 bits does, so that pairs of codes are loaded.
  __device__ __forceinline__ void load_x(int slot, int step) {
    unsigned char* stage = ring + slot * STAGE_BYTES;
    if (is_bf16()) return load_bf16(stage, step);
    load_tile<TM, L::THREADS>(stage, p.gemm.x, at.first_row, p.gemm.m, step * TILE_K, p.gemm.k / 2);
    load_scales(stage + X_SCALES, p.scales.x + static_cast<size_t>(step) * p.scales.x_stride, TM, at.first_row, p.gemm.m);
  }

  // A thread a chunk.
  __device__ __forceinline__ void load_bf16(unsigned char* stage, int step) {
    const int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, column = (step * CHUNKS + chunk) * 16;
    const bool inside = row < p.gemm.m && column < p.gemm.k;
    const __nv_bfloat16* from = p.gemm.x + (inside ? static_cast<size_t>(row) * p.gemm.k + column : 0);
    cp_async16(stage + swizzled(row, chunk), from, inside);
    cp_async16(stage + X_SCALES + threadIdx.x * 16, from + 8, inside);
  }

  // Numbers become codes: of a warp's four rows, where there are any.
  __device__ __forceinline__ void landed(int slot) {
    const int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    if (!is_bf16() || row / 4 * 4 >= p.gemm.m) return;
    unsigned char* stage = ring + slot * STAGE_BYTES;
    uint4* codes = reinterpret_cast<uint4*>(stage + swizzled(row, chunk));
    void* rest = stage + X_SCALES + threadIdx.x * 16;
    const uint4 a = *codes, b = *static_cast<const uint4*>(rest);
    const float4 x[4] = {unpack_bf16(a.x, a.y), unpack_bf16(a.z, a.w), unpack_bf16(b.x, b.y), unpack_bf16(b.z, b.w)};
    if (p.scales.peaks == nullptr || by.scale == 0.0f) {
      const uint32_t largest = p.scales.peaks != nullptr
                                   ? p.scales.peaks[chunk * PEAK_ROWS + row]
                                   : max(max(magnitude(x[0]), magnitude(x[1])), max(magnitude(x[2]), magnitude(x[3])));
      by = Divisor(e4m3_scale(__uint_as_float(max_of_eight(largest))));
    }
    *codes = make_uint4(pack_e4m3(x[0], by), pack_e4m3(x[1], by), pack_e4m3(x[2], by), pack_e4m3(x[3], by));
    if (chunk == 0) *static_cast<float*>(rest) = by.scale;
  }

  __device__ __forceinline__ void load_w(int slot, int step, bool) {
    const Gemm& g = p.gemm;
    const int shift = p.scales.w_shift;
    unsigned char* stage = ring + slot * STAGE_BYTES;
    load_tile<L::TN, L::THREADS>(stage + W, static_cast<const __nv_bfloat16*>(g.w), at.first_output, g.n, step * TILE_K, g.k / 2);
    const float* scales = static_cast<const float*>(g.meta) + static_cast<size_t>(step) * p.scales.w_stride;
    load_scales(stage + W_SCALES, scales, L::TN >> shift, at.first_output >> shift, g.n >> shift);
  }

  template <int MT, int NT>
  __device__ __forceinline__ void multiply(Sums<MT, NT>& sums, int slot, int) {
    const unsigned char* stage = ring + slot * STAGE_BYTES;
    const int lane = threadIdx.x % 32;
    const float* w_scales = reinterpret_cast<const float*>(stage + W_SCALES);
    const int x_stride = is_bf16() ? CHUNKS * 4 : 1;
#pragma unroll
    for (int first = 0; first < MT; first += DOTS_M<MT>) {
      const int row = at.row + first * 16;
      const float* x_scales = reinterpret_cast<const float*>(stage + X_SCALES) + (row + lane / 4) * x_stride;
      Sums<DOTS_M<MT>, NT> dots;
      multiply_stage<E4m3Products, MT == 4 ? 1 : 4>(dots, stage, stage + W, row, at.column);
#pragma unroll
      for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
          const float w_scale = w_scales[(at.column + n * 8 + lane % 4 * 2 + side) >> p.scales.w_shift] * E4m3Products::UNIT;
#pragma unroll
          for (int m = 0; m < DOTS_M<MT>; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
              float& sum = sums.at[first + m][n][half * 2 + side];
              sum = __fmaf_rn(dots.at[m][n][half * 2 + side], x_scales[(m * 16 + half * 8) * x_stride] * w_scale, sum);
            }
          }
        }
      }
    }
  }
};

template <int TM, Out OUT, bool MAKES = TM == PEAK_ROWS>
__device__ __forceinline__ void codes(const Fp8& p) {
  DYN_SMEM(ring);
  Codes<TM, MAKES> work(p, ring);
  gemm<OUT>(p.gemm, work, ring);
}

template <int TM, Out OUT>
__device__ __forceinline__ void codes(const Fp8Experts& p) {
  Fp8 own{{}, p.scales};
  if (choose_expert(p.experts, own.gemm)) codes<TM, OUT, false>(own);
}

#define GEMMS(D)                                                                                                                \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_fp8_store_##D(const Fp8 p) { codes<D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_fp8_add_##D(const Fp8 p) { codes<D, Out::Add>(p); }     \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS) gemm_fp8_glu_##D(const Fp8 p) { codes<D, Out::Glu>(p); }

#define EXPERTS(D)                                                                                                                           \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_fp8_store_##D(const Fp8Experts p) { codes<D, Out::Store>(p); } \
  extern "C" __global__ void __launch_bounds__(Layout<D>::THREADS, 2) experts_fp8_glu_##D(const Fp8Experts p) { codes<D, Out::Glu>(p); }

GEMMS(16)
GEMMS(64)
GEMMS(128)
EXPERTS(16)
EXPERTS(64)
