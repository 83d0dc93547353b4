// Each function of ptx.cuh alone, for one warp, so that a card can be held against the emulator instruction by instruction. Compiled
// into the tests only.
//
//   in [32, I] words, out [32, O] words; a lane reads and writes a row of its own
#include "e4m3.cuh"

struct Wrapper {
  const uint32_t* in;
  uint32_t* out;
};

constexpr int LANES = 32;

// Brings four words a lane to shared memory, 16 bytes a lane, through the asynchronous copy.
__device__ __forceinline__ void stage(uint32_t* tile, const Wrapper& p, int copied) {
  cp_async16(tile + threadIdx.x * 4, p.in + threadIdx.x * 4, static_cast<int>(threadIdx.x) < copied);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
}

__device__ __forceinline__ void store(const Wrapper& p, const uint32_t (&words)[4]) {
  for (int at = 0; at < 4; at++) p.out[threadIdx.x * 4 + at] = words[at];
}

// Lanes from 20 on copy zeros.
extern "C" __global__ void __launch_bounds__(32) wrapper_cp_async16(const Wrapper p) {
  after_former_kernel();
  SMEM_ARRAY(uint32_t, tile, LANES * 4);
  stage(tile, p, 20);
  // A neighbour's words, which it copied.
  const uint32_t* from = tile + (threadIdx.x + 1) % LANES * 4;
  const uint32_t words[4] = {from[0], from[1], from[2], from[3]};
  store(p, words);
}

// Two groups under way, of which the older one is waited for.
extern "C" __global__ void __launch_bounds__(32) wrapper_cp_async_wait(const Wrapper p) {
  after_former_kernel();
  SMEM_ARRAY(uint32_t, tile, 2 * LANES * 4);
  const int at = threadIdx.x * 4;
  cp_async16(tile + at, p.in + at);
  cp_async_commit();
  cp_async16(tile + LANES * 4 + at, p.in + LANES * 4 - 4 - at);
  cp_async_commit();
  cp_async_wait<1>();
  uint32_t words[4] = {tile[at], tile[at + 1], 0, 0};
  cp_async_wait<0>();
  words[2] = tile[LANES * 4 + at];
  words[3] = tile[LANES * 4 + at + 1];
  store(p, words);
}

extern "C" __global__ void __launch_bounds__(32) wrapper_ldmatrix_x4(const Wrapper p) {
  after_former_kernel();
  SMEM_ARRAY(uint32_t, tile, LANES * 4);
  stage(tile, p, LANES);
  uint32_t words[4];
  ldmatrix_x4(words, tile + threadIdx.x * 4);
  store(p, words);
}

extern "C" __global__ void __launch_bounds__(32) wrapper_ldmatrix_x4_trans(const Wrapper p) {
  after_former_kernel();
  SMEM_ARRAY(uint32_t, tile, LANES * 4);
  stage(tile, p, LANES);
  uint32_t words[4];
  ldmatrix_x4_trans(words, tile + threadIdx.x * 4);
  store(p, words);
}

// Rows of a lane: four words of a, two of b, four sums.
template <class Instruction>
__device__ __forceinline__ void multiply(const Wrapper& p, Instruction instruction) {
  const uint32_t* in = p.in + threadIdx.x * 10;
  const uint32_t a[4] = {in[0], in[1], in[2], in[3]};
  const uint32_t b[2] = {in[4], in[5]};
  float d[4];
  for (int at = 0; at < 4; at++) d[at] = bit_cast_<float>(in[6 + at]);
  instruction(d, a, b);
  for (int at = 0; at < 4; at++) p.out[threadIdx.x * 4 + at] = bit_cast_<uint32_t>(d[at]);
}

using Sums = float (&)[4];
using A = const uint32_t (&)[4];
using B = const uint32_t (&)[2];

extern "C" __global__ void __launch_bounds__(32) wrapper_mma_m16n8k16_bf16(const Wrapper p) {
  after_former_kernel();
  multiply(p, [](Sums d, A a, B b) { mma_m16n8k16_bf16(d, a, b); });
}

extern "C" __global__ void __launch_bounds__(32) wrapper_mma_m16n8k16_f16(const Wrapper p) {
  after_former_kernel();
  multiply(p, [](Sums d, A a, B b) { mma_m16n8k16_f16(d, a, b); });
}

// Cards without the instruction show what stands for it there.
extern "C" __global__ void __launch_bounds__(32) wrapper_mma_m16n8k32_e4m3(const Wrapper p) {
  after_former_kernel();
  multiply(p, [](Sums d, A a, B b) {
#if defined(CUDA_EMU) || __CUDA_ARCH__ >= 890
    mma_m16n8k32_e4m3(d, a, b);
#else
    for (int at = 0; at < 4; at++) d[at] /= E4m3Products::UNIT;
    E4m3Products::add(d, a, b);
    for (int at = 0; at < 4; at++) d[at] *= E4m3Products::UNIT;
#endif
  });
}

// Of words without NaN.
extern "C" __global__ void __launch_bounds__(32) wrapper_f16x2_of_e4m3x2(const Wrapper p) {
  after_former_kernel();
  uint32_t words[4];
  for (int at = 0; at < 4; at++) {
    const uint32_t word = p.in[threadIdx.x * 4 + at] & 0xbfbfbfbfu;
#if defined(CUDA_EMU) || __CUDA_ARCH__ >= 890
    words[at] = f16x2_of_e4m3x2(word);
#else
    const __half2 pair = bit_cast_<__half2>(f16_pair<true>(word, false));
    words[at] = bit_cast_<uint32_t>(__hmul2(pair, __float2half2_rn(256.0f)));
#endif
  }
  store(p, words);
}

extern "C" __global__ void __launch_bounds__(32) wrapper_lop3(const Wrapper p) {
  after_former_kernel();
  const uint32_t* in = p.in + threadIdx.x * 3;
  const uint32_t a = in[0], b = in[1], c = in[2];
  const uint32_t words[4] = {lop3<0xEA>(a, b, c), lop3<0x6A>(a, b, c), lop3<0xCA>(a, b, c), lop3<0x1B>(a, b, c)};
  store(p, words);
}
