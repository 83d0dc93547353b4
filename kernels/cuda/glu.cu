// Gated units of a product that lies in memory: y = f(gate) * up.
//
//   x [T, N] bf16, columns alternating eight of gate and eight of up  ->  y [T, N / 2] bf16;  N a multiple of 16
//   tiling    a thread eight units; rows along the grid's x, as there may be more than its y takes
//   roofline  3 T N bytes / DRAM bandwidth
#include "gemm_out.cuh"

struct Glu {
  const __nv_bfloat16* x;
  __nv_bfloat16* y;
  int units;  // of a row
  int activation;
};

extern "C" __global__ void __launch_bounds__(256) glu_rows(const Glu p) {
  after_former_kernel();
  const int first = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (first >= p.units) return;
  const uint4* x = reinterpret_cast<const uint4*>(p.x + static_cast<size_t>(blockIdx.x) * p.units * 2 + first * 2);
  const uint4 gates = x[0], ups = x[1];
  const auto pair = [&](uint32_t gate, uint32_t up) {
    const float2 g = __bfloat1622float2(bit_cast_<__nv_bfloat162>(gate)), u = __bfloat1622float2(bit_cast_<__nv_bfloat162>(up));
    return pack_bf16(activated(g.x, p.activation) * u.x, activated(g.y, p.activation) * u.y);
  };
  uint4* y = reinterpret_cast<uint4*>(p.y + static_cast<size_t>(blockIdx.x) * p.units + first);
  *y = make_uint4(pair(gates.x, ups.x), pair(gates.y, ups.y), pair(gates.z, ups.z), pair(gates.w, ups.w));
}
