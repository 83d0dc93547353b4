// Activations of bf16 as e4m3: what attention and gated units emit, of which no block sees a whole row.
//
//   x [T, cols] bf16  ->  codes [T, cols] e4m3 and scales, one a row or one a row and 128 columns: code = x / scale to the nearest, scale
//   the largest magnitude / 448 (e4m3.cuh);  cols a multiple of 4
//   tiling    one block of 256 threads a row, the row read twice (the second time from a cache)
//   roofline  3 T cols bytes / DRAM bandwidth
//   launch    of its own, begun while the kernel before ends: two of a dense layer's nine. A matmul could make the codes of few rows on its
//             way, but each of its blocks would first have to find its rows' largest magnitudes: with 4096 x 14336, whose 59 MB take an
//             H200 12 us, 256 blocks would read 7 MB from the second-level cache for one row (1 to 2 us) and 117 MB for 16 (21 us). By this
//             estimate, which no card has checked, that gains a microsecond or so at one row, nothing at four, and loses from there on
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
    const float2 low = __bfloat1622float2(bit_cast_<__nv_bfloat162>(v.x));
    const float2 high = __bfloat1622float2(bit_cast_<__nv_bfloat162>(v.y));
    return make_float4(low.x, low.y, high.x, high.y);
  };
  write_e4m3(p.to, p.cols, value, [&] {
    uint32_t largest = 0;
    for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) largest = max(largest, magnitude(value(at)));
    return __uint_as_float(block_max(largest, scratch));
  });
}
