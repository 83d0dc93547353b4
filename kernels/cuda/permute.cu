// Activations in the order of a weight's groups: y[row] = x[row][order], for weights that were quantized in the order of activations.
//
//   x, y [M, K] bf16, order [K], K a multiple of 8
//   tiling    blocks of 1024 columns of a row, eight a thread
//   roofline  4 M K bytes / DRAM bandwidth, and 4 K of order
//   why       a matmul copies x in pieces of 16 bytes behind the threads' back, and each row N / 64 times; columns in another order would
//             come one by one, every time. Here they do so once.
#include "vectors.cuh"

struct Permute {
  const __nv_bfloat16* x;
  const uint32_t* order;
  __nv_bfloat16* y;
  int cols;
};

extern "C" __global__ void __launch_bounds__(128) permute(const Permute p) {
  after_former_kernel();
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (column >= p.cols) return;
  const uint16_t* x = reinterpret_cast<const uint16_t*>(p.x) + static_cast<size_t>(blockIdx.y) * p.cols;
  const uint4* order = reinterpret_cast<const uint4*>(p.order + column);
  const uint4 first = order[0], second = order[1];
  auto pair = [&](uint32_t low, uint32_t high) { return x[low] | static_cast<uint32_t>(x[high]) << 16; };
  uint4* y = reinterpret_cast<uint4*>(p.y + static_cast<size_t>(blockIdx.y) * p.cols + column);
  *y = make_uint4(pair(first.x, first.y), pair(first.z, first.w), pair(second.x, second.y), pair(second.z, second.w));
}
