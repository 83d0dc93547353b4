// One block's tile of y = x W^T on tensor cores: operands through a ring of shared-memory stages, f32 sums in registers.
//
// Within a split of K (gemm_pipeline.cuh) an output's sum runs over k ascending, 16 a step, in one accumulator, whatever the tile's
// shape: so a row's bits depend neither on its neighbours nor on how many rows there are.
#pragma once

#include "vectors.cuh"

constexpr int TILE_K = 64;                  // of 16 bits: 128 bytes, eight chunks of 16
constexpr int CHUNKS = TILE_K * 2 / 16;

// Byte offset of chunk `chunk` of row `row` in a stage: chunks are permuted by row, so that the eight rows of an 8 x 8 matrix
// lie in different banks.
__device__ __forceinline__ int swizzled(int row, int chunk) { return (row * CHUNKS + (chunk ^ (row % CHUNKS))) * 16; }

// Asks for rows `first ..` of `from [rows, k]`, columns `k0 .. k0 + TILE_K`; zeros beyond either. k a multiple of 8.
template <int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(unsigned char* stage, const __nv_bfloat16* from, int first, int rows, int k0, int k) {
#pragma unroll
  for (int at = threadIdx.x; at < ROWS * CHUNKS; at += THREADS) {
    const int row = at / CHUNKS, chunk = at % CHUNKS, column = k0 + chunk * 8;
    const bool inside = first + row < rows && column < k;
    cp_async16(stage + swizzled(row, chunk), inside ? from + static_cast<size_t>(first + row) * k + column : from, inside);
  }
}

// A warp's share: MT tiles of 16 rows by NT (even) tiles of 8 outputs.
template <int MT, int NT>
struct Sums {
  float at[MT][NT][4] = {};

  __device__ __forceinline__ void add(int m, int n, const float4& more) {
    at[m][n][0] += more.x, at[m][n][1] += more.y, at[m][n][2] += more.z, at[m][n][3] += more.w;
  }

  // Adds `other`, and leaves zeros there.
  __device__ __forceinline__ void take(Sums& other) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const float* more = other.at[m][n];
        add(m, n, make_float4(more[0], more[1], more[2], more[3]));
      }
    }
    other = Sums();
  }
};

// Tiles of rows whose products are summed at a time, where those of a group are scaled before they join the sums: more have no room in
// registers.
template <int MT>
constexpr int DOTS_M = MT < 2 ? MT : 2;

struct Bf16Products {
  __device__ static __forceinline__ void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_bf16(d, a, b);
  }
};

// Adds one stage's products; the warp's rows start at `row`, its outputs at `column` of the stage. Operands of 8 bits take the same
// chunks, of twice as many k. `UNROLLED` steps of 16 k at a time: fewer take fewer registers.
template <class Products = Bf16Products, int UNROLLED = TILE_K / 16, int MT, int NT>
__device__ __forceinline__ void multiply_stage(Sums<MT, NT>& sums, const unsigned char* x, const unsigned char* w, int row,
                                               int column) {
  const int lane = threadIdx.x % 32;
#pragma unroll UNROLLED
  for (int step = 0; step < TILE_K / 16; step++) {
    uint32_t a[MT][4], b[NT / 2][4];
#pragma unroll
    for (int m = 0; m < MT; m++) ldmatrix_x4(a[m], x + swizzled(row + m * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
    for (int n = 0; n < NT / 2; n++) {
      ldmatrix_x4(b[n], w + swizzled(column + n * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const uint32_t pair[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
        Products::add(sums.at[m][n], a[m], pair);
      }
    }
  }
}
