// The functions of ptx.cuh without PTX: each does what the PTX ISA says of its instruction.
//
// Fragments, for a lane l = (group, pair) = (l / 4, l % 4) of a warp:
//   A [16 x K]   word 0 row `group`, word 1 row `group + 8`, words 2 and 3 the same rows half of K further on
//   B [K x 8]    word 0 column `group`, word 1 the same half of K further on
//   D [16 x 8]   elements 0, 1 row `group`, elements 2, 3 row `group + 8`; columns 2 pair and the next
// where a word holds consecutive elements along K, from `pair` times as many as fit a word.
#pragma once

#include <cstdint>
#include <cstring>

#include "emu_math.h"
#include "emu_numbers.h"
#include "emu_runtime.h"

template <class To, class From>
inline To bit_cast_(From from) {
    return emu::same_bits<To>(from);
}

inline void cp_async16(void* to, const void* from, bool pred = true, emu::Site site = emu::Site::here("cp_async16")) {
    emu::copy_async(to, from, 16, pred ? 16 : 0, site);
}

inline void cp_async_commit() { emu::copy_commit(); }

template <int N>
inline void cp_async_wait() {
    emu::copy_wait(N);
}

inline void after_former_kernel(emu::Site site = emu::Site::here("after_former_kernel")) { emu::wait_for_former_kernel(site); }

namespace emu {

struct MatrixLoad {
    const unsigned char* row;
    uint32_t* words;
};

// Lane l names row l % 8 of matrix l / 8 (lanes beyond the last matrix name nothing), and gets of each matrix the
// elements 2 (l % 4) and the next of row l / 4, or of column l / 4 where the load transposes.
template <int MATRICES, bool TRANSPOSED>
inline void load_matrices(uint32_t (&words)[MATRICES], const void* row, const Site& site) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0 && current->lane < MATRICES * 8) {
        fail(Failure::misaligned, site, "a row's address is not a multiple of 16");
    }
    MatrixLoad mine{static_cast<const unsigned char*>(row), words};
    whole_warp(site, &mine, [](uint32_t, void** operands) {
        const auto lane_load = [&](unsigned lane) { return static_cast<MatrixLoad*>(operands[lane]); };
        for (unsigned matrix = 0; matrix < MATRICES; matrix++) {
            uint16_t elements[8][8];
            for (unsigned at = 0; at < 8; at++) {
                memcpy(elements[at], lane_load(matrix * 8 + at)->row, sizeof elements[at]);
            }
            for (unsigned lane = 0; lane < 32; lane++) {
                const unsigned group = lane / 4;
                const unsigned first = lane % 4 * 2;
                const uint32_t low = TRANSPOSED ? elements[first][group] : elements[group][first];
                const uint32_t high = TRANSPOSED ? elements[first + 1][group] : elements[group][first + 1];
                lane_load(lane)->words[matrix] = low | high << 16;
            }
        }
    });
}

// How elements lie in a word of a fragment, and what they are worth.
struct Bf16Fragment {
    using Value = float;
    static constexpr int per_word = 2;
    static Value value(uint32_t word, int at) { return bf16_value(static_cast<uint16_t>(word >> (16 * at))); }
};

struct HalfFragment {
    using Value = float;
    static constexpr int per_word = 2;
    static Value value(uint32_t word, int at) { return half_value(static_cast<uint16_t>(word >> (16 * at))); }
};

struct E4m3Fragment {
    using Value = float;
    static constexpr int per_word = 4;
    static Value value(uint32_t word, int at) { return e4m3_value(static_cast<uint8_t>(word >> (8 * at))); }
};

struct S8Fragment {
    using Value = int;
    static constexpr int per_word = 4;
    static Value value(uint32_t word, int at) { return static_cast<int8_t>(word >> (8 * at)); }
};

template <class Sum>
struct Multiply {
    Sum* d;
    const uint32_t* a;
    const uint32_t* b;
};

// d += a b. A word's elements times 8 are K: 16 for 16 bits, 32 for 8 bits.
template <class Fragment, class Sum>
inline void multiply_add(Sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Site& site) {
    Multiply<Sum> mine{d, a, b};
    whole_warp(site, &mine, [](uint32_t, void** operands) {
        constexpr int K = Fragment::per_word * 8;
        typename Fragment::Value rows[16][K];
        typename Fragment::Value columns[8][K];
        for (int lane = 0; lane < 32; lane++) {
            const auto& of_lane = *static_cast<Multiply<Sum>*>(operands[lane]);
            const int group = lane / 4;
            for (int at = 0; at < Fragment::per_word; at++) {
                const int k = lane % 4 * Fragment::per_word + at;
                rows[group][k] = Fragment::value(of_lane.a[0], at);
                rows[group + 8][k] = Fragment::value(of_lane.a[1], at);
                rows[group][k + K / 2] = Fragment::value(of_lane.a[2], at);
                rows[group + 8][k + K / 2] = Fragment::value(of_lane.a[3], at);
                columns[group][k] = Fragment::value(of_lane.b[0], at);
                columns[group][k + K / 2] = Fragment::value(of_lane.b[1], at);
            }
        }
        for (int lane = 0; lane < 32; lane++) {
            Sum* sums = static_cast<Multiply<Sum>*>(operands[lane])->d;
            for (int at = 0; at < 4; at++) {
                const auto* row = rows[lane / 4 + at / 2 * 8];
                const auto* column = columns[lane % 4 * 2 + at % 2];
                Sum products = 0;
                for (int k = 0; k < K; k++) {
                    products += row[k] * column[k];
                }
                sums[at] += products;
            }
        }
    });
}

}  // namespace emu

inline void ldmatrix_x2(uint32_t (&words)[2], const void* row, emu::Site site = emu::Site::here("ldmatrix_x2")) {
    emu::load_matrices<2, false>(words, row, site);
}

inline void ldmatrix_x2_trans(uint32_t (&words)[2], const void* row, emu::Site site = emu::Site::here("ldmatrix_x2_trans")) {
    emu::load_matrices<2, true>(words, row, site);
}

inline void ldmatrix_x4(uint32_t (&words)[4], const void* row, emu::Site site = emu::Site::here("ldmatrix_x4")) {
    emu::load_matrices<4, false>(words, row, site);
}

inline void ldmatrix_x4_trans(uint32_t (&words)[4], const void* row, emu::Site site = emu::Site::here("ldmatrix_x4_trans")) {
    emu::load_matrices<4, true>(words, row, site);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              emu::Site site = emu::Site::here("mma_m16n8k16_bf16")) {
    emu::multiply_add<emu::Bf16Fragment>(d, a, b, site);
}

inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             emu::Site site = emu::Site::here("mma_m16n8k16_f16")) {
    emu::multiply_add<emu::HalfFragment>(d, a, b, site);
}

inline void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              emu::Site site = emu::Site::here("mma_m16n8k32_e4m3")) {
    emu::multiply_add<emu::E4m3Fragment>(d, a, b, site);
}

inline void mma_m16n8k32_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            emu::Site site = emu::Site::here("mma_m16n8k32_s8")) {
    emu::multiply_add<emu::S8Fragment>(d, a, b, site);
}

inline uint32_t f16x2_of_e4m3x2(uint32_t pair) {
    const auto half_of = [](uint32_t byte) { return uint32_t{emu::half_bits(emu::e4m3_value(static_cast<uint8_t>(byte)))}; };
    return half_of(pair) | half_of(pair >> 8) << 16;
}

// Bit i of the table is the result where a, b, c are the bits of i, a the highest.
template <int LUT>
inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result = 0;
    for (int at = 0; at < 8; at++) {
        if (LUT >> at & 1) {
            result |= (at & 4 ? a : ~a) & (at & 2 ? b : ~b) & (at & 1 ? c : ~c);
        }
    }
    return result;
}

inline int dp4a(int a, int b, int c) { return __dp4a(a, b, c); }

// Programmatic dependent launch: launches of a stream run one after another here, so there is nothing to wait for.
inline void grid_dependency_wait() {}
inline void grid_dependency_launch() {}
