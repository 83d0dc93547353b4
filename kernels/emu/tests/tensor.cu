// Matrix instructions, with fragments filled element by element as the PTX ISA numbers them.
#include <stdint.h>

#include "e4m3.cuh"

// The row and column of element i of each fragment, for 16-bit operands (m16n8k16) and 8-bit ones (m16n8k32).
template <int BITS>
struct Layout {
    static constexpr int PER_WORD = 32 / BITS;
    static constexpr int K = 8 * PER_WORD;

    static __device__ int a_row(int lane, int i) { return lane / 4 + (i / PER_WORD % 2) * 8; }
    static __device__ int a_column(int lane, int i) { return lane % 4 * PER_WORD + i % PER_WORD + (i >= 2 * PER_WORD ? K / 2 : 0); }
    static __device__ int b_row(int lane, int i) { return lane % 4 * PER_WORD + i % PER_WORD + (i >= PER_WORD ? K / 2 : 0); }
    static __device__ int b_column(int lane) { return lane / 4; }
    static __device__ int d_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
    static __device__ int d_column(int lane, int i) { return lane % 4 * 2 + i % 2; }
};

// a [16, K] and b [K, 8] row-major in elements of T, d [16, 8].
template <class T, class Sum, class Instruction>
__device__ __forceinline__ void multiply(const T* a, const T* b, Sum* d, Instruction instruction) {
    using At = Layout<sizeof(T) * 8>;
    const int lane = static_cast<int>(threadIdx.x);
    uint32_t a_words[4] = {};
    uint32_t b_words[2] = {};
    Sum sums[4];
    for (int i = 0; i < 4 * At::PER_WORD; i++) {
        const uint32_t bits = a[At::a_row(lane, i) * At::K + At::a_column(lane, i)];
        a_words[i / At::PER_WORD] |= bits << (i % At::PER_WORD * sizeof(T) * 8);
    }
    for (int i = 0; i < 2 * At::PER_WORD; i++) {
        const uint32_t bits = b[At::b_row(lane, i) * 8 + At::b_column(lane)];
        b_words[i / At::PER_WORD] |= bits << (i % At::PER_WORD * sizeof(T) * 8);
    }
    for (int i = 0; i < 4; i++) {
        sums[i] = d[At::d_row(lane, i) * 8 + At::d_column(lane, i)];
    }
    instruction(sums, a_words, b_words);
    for (int i = 0; i < 4; i++) {
        d[At::d_row(lane, i) * 8 + At::d_column(lane, i)] = sums[i];
    }
}

extern "C" __global__ void multiply_bf16(const uint16_t* a, const uint16_t* b, float* d) {
    multiply(a, b, d, [](float(&sums)[4], const uint32_t(&x)[4], const uint32_t(&y)[2]) { mma_m16n8k16_bf16(sums, x, y); });
}

extern "C" __global__ void multiply_e4m3(const uint8_t* a, const uint8_t* b, float* d) {
    multiply(a, b, d, [](float(&sums)[4], const uint32_t(&x)[4], const uint32_t(&y)[2]) { mma_m16n8k32_e4m3(sums, x, y); });
}

// As architectures without tensor cores for e4m3 do it: d in units of the products.
template <bool SHIFTED>
__device__ __forceinline__ void multiply_by_halves(const uint8_t* a, const uint8_t* b, float* d) {
    using Products = E4m3ByHalves<SHIFTED>;
    multiply(a, b, d, [](float(&sums)[4], const uint32_t(&x)[4], const uint32_t(&y)[2]) {
        for (float& sum : sums) sum /= Products::UNIT;
        Products::add(sums, x, y);
        for (float& sum : sums) sum *= Products::UNIT;
    });
}

extern "C" __global__ void multiply_e4m3_as_f16(const uint8_t* a, const uint8_t* b, float* d) { multiply_by_halves<false>(a, b, d); }
extern "C" __global__ void multiply_e4m3_shifted(const uint8_t* a, const uint8_t* b, float* d) { multiply_by_halves<true>(a, b, d); }

// Every code as f16: [2][256], converted and shifted.
extern "C" __global__ void widen_e4m3(uint16_t* halves) {
    const uint32_t code = threadIdx.x;
    const bool high = threadIdx.x % 2 == 1;
    const uint32_t word = code << (high ? 24 : 8);
    halves[code] = static_cast<uint16_t>(f16_pair<false>(word, high) >> 16);
    halves[256 + code] = static_cast<uint16_t>(f16_pair<true>(word, high) >> 16);
}

extern "C" __global__ void multiply_s8(const uint8_t* a, const uint8_t* b, int* d) {
    multiply(a, b, d, [](int(&sums)[4], const uint32_t(&x)[4], const uint32_t(&y)[2]) { mma_m16n8k32_s8(sums, x, y); });
}

// Loads four 8 x 8 matrices that lie one after another; words [32][4] straight, then [32][4] transposed, then [32][2] of
// the first two straight and [32][2] transposed.
extern "C" __global__ void load_matrices(const uint16_t* in, uint32_t* words) {
    SMEM_ARRAY(uint16_t, stage, 4 * 64);
    const int lane = static_cast<int>(threadIdx.x);
    for (int at = 0; at < 8; at++) {
        stage[lane * 8 + at] = in[lane * 8 + at];
    }
    __syncwarp();
    uint32_t four[4];
    uint32_t two[2];
    ldmatrix_x4(four, stage + lane * 8);
    for (int matrix = 0; matrix < 4; matrix++) {
        words[lane * 4 + matrix] = four[matrix];
    }
    ldmatrix_x4_trans(four, stage + lane * 8);
    for (int matrix = 0; matrix < 4; matrix++) {
        words[128 + lane * 4 + matrix] = four[matrix];
    }
    ldmatrix_x2(two, stage + lane % 16 * 8);
    words[256 + lane * 2] = two[0];
    words[256 + lane * 2 + 1] = two[1];
    ldmatrix_x2_trans(two, stage + lane % 16 * 8);
    words[320 + lane * 2] = two[0];
    words[320 + lane * 2 + 1] = two[1];
}

extern "C" __global__ void load_matrix_misaligned(uint32_t* words) {
    SMEM_ARRAY(uint16_t, stage, 4 * 64 + 4);
    uint32_t four[4];
    ldmatrix_x4(four, stage + 4 + threadIdx.x * 8);
    words[threadIdx.x] = four[0];
}
