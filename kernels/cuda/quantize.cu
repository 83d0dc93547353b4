// Activations of bf16 as e4m3: what attention and gated units emit, of which no block sees a whole row. Of up to 16 rows a matmul makes the
// same codes on its way (gemm_fp8.cu); experts do not.
//
//   x [T, cols] bf16  ->  codes [T, cols] e4m3 and scales, one a row or one a row and 128 columns: code = x / scale to the nearest, scale
//   the largest magnitude / 448 (e4m3.cuh);  cols a multiple of 4
//   tiling    one block of 256 threads a row, the row read twice (the second time from a cache)
//   roofline  3 T cols bytes / DRAM bandwidth
#include "e4m3_rows.cuh"

struct Quantize {
  const __nv_bfloat16* x;
  E4m3Rows to;
  int cols;
};

extern "C" __global__ void __launch_bounds__(256) quantize_rows(const Quantize p) {
  SMEM_ARRAY(uint32_t, scratch, 32);
  after_former_kernel();
  const uint2* row = reinterpret_cast<const uint2*>(p.x + static_cast<size_t>(blockIdx.x) * p.cols);
  const auto value = [&](int at) {
    const uint2 v = row[at];
    return unpack_bf16(v.x, v.y);
  };
  write_e4m3(p.to, p.cols, value, [&] {
    uint32_t largest = 0;
    for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) largest = max(largest, magnitude(value(at)));
    return __uint_as_float(block_max(largest, scratch));
  });
}
