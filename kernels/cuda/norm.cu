// RMSNorm: y = x / sqrt(mean(x^2) + eps) * gain.
//
//   x [T, cols] f32, gain [cols] f32  ->  y [T, cols] bf16, or e4m3 codes with scales as quantize.cu makes them, or both; cols a
//   multiple of 4;  peaks: zeros, for whichever kernel after this raises them
//   tiling    one block of 256 threads a row, the row read twice (the second time from a cache)
//   roofline  T cols (4 + 2 of bf16 + 1 of codes) bytes / DRAM bandwidth
#include "e4m3_rows.cuh"
#include "row_peaks.cuh"

struct Norm {
  const float* x;
  const float* gain;
  __nv_bfloat16* y;  // null where codes are all that is wanted
  E4m3Rows codes;    // null as well
  uint32_t* peaks;   // null as well: row_peaks.cuh
  int cols;
  float eps;
};

extern "C" __global__ void __launch_bounds__(256) rms_norm(const Norm p) {
  SMEM_ARRAY(float, scratch, 32);
  SMEM_ARRAY(uint32_t, magnitudes, 32);
  after_former_kernel();
  if (p.peaks != nullptr && blockIdx.x == 0 && threadIdx.x < PEAK_COPIES * PEAK_ROWS) p.peaks[threadIdx.x] = 0;
  const float4* row = reinterpret_cast<const float4*>(p.x + static_cast<size_t>(blockIdx.x) * p.cols);
  const float4* gains = reinterpret_cast<const float4*>(p.gain);
  float squares = 0.0f;
  uint32_t largest = 0;
  for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) {
    const float4 v = row[at], g = gains[at];
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    largest = max(largest, magnitude(make_float4(v.x * g.x, v.y * g.y, v.z * g.z, v.w * g.w)));
  }
  const float scale = rsqrtf(block_sum(squares, scratch) / p.cols + p.eps);
  const auto value = [&](int at) {
    const float4 v = row[at], g = gains[at];
    return make_float4(v.x * scale * g.x, v.y * scale * g.y, v.z * scale * g.z, v.w * scale * g.w);
  };
  if (p.y != nullptr) {
    uint2* out = reinterpret_cast<uint2*>(p.y + static_cast<size_t>(blockIdx.x) * p.cols);
    for (int at = threadIdx.x; at < p.cols / 4; at += blockDim.x) {
      const float4 v = value(at);
      out[at] = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
    }
  }
  if (p.codes.codes != nullptr) {
    write_e4m3(p.codes, p.cols, value, [&] { return __uint_as_float(block_max(largest, magnitudes)) * scale; });
  }
}
