// Cases of matrix instructions against plain loops.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "emu_numbers.h"
#include "harness.h"

using namespace harness;

namespace {

std::mt19937 random_bits(11);

float small_number() { return static_cast<float>(static_cast<int>(random_bits() % 65) - 32) / 8.0f; }

// Multiplies [16, k] by [k, 8] and adds to what is there, with the kernel and with a loop. All numbers are small multiples
// of 1/64 or so: every order of adding gives the same sum.
template <class Bits, class Sum, class Encode, class Decode>
void check_multiply(const char* kernel, int k, Encode encode, Decode decode) {
    std::vector<Bits> a(16 * k);
    std::vector<Bits> b(k * 8);
    std::vector<Sum> d(16 * 8);
    for (Bits& bits : a) {
        bits = encode(small_number());
    }
    for (Bits& bits : b) {
        bits = encode(small_number());
    }
    for (Sum& sum : d) {
        sum = static_cast<Sum>(small_number());
    }
    const std::vector<Sum> before = d;
    run(kernel, 1, 32, {emu::Order::random, 3, 1}, static_cast<const Bits*>(a.data()), static_cast<const Bits*>(b.data()), d.data());
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            Sum expected = before[row * 8 + column];
            for (int at = 0; at < k; at++) {
                expected += static_cast<Sum>(decode(a[row * k + at])) * static_cast<Sum>(decode(b[at * 8 + column]));
            }
            const Sum found = d[row * 8 + column];
            expect(found == expected, "(%d, %d) is %g and not %g", row, column, double(found), double(expected));
        }
    }
}

}  // namespace

CASE(multiply_bf16, passes()) {
    check_multiply<uint16_t, float>("multiply_bf16", 16, emu::bf16_bits, emu::bf16_value);
}

CASE(multiply_e4m3, passes()) {
    check_multiply<uint8_t, float>("multiply_e4m3", 32, emu::e4m3_bits, emu::e4m3_value);
}

CASE(multiply_e4m3_as_f16, passes()) {
    check_multiply<uint8_t, float>("multiply_e4m3_as_f16", 32, emu::e4m3_bits, emu::e4m3_value);
}

CASE(multiply_e4m3_shifted, passes()) {
    check_multiply<uint8_t, float>("multiply_e4m3_shifted", 32, emu::e4m3_bits, emu::e4m3_value);
}

CASE(widen_e4m3, passes()) {
    std::vector<uint16_t> halves(2 * 256);
    run("widen_e4m3", 1, 256, {}, halves.data());
    for (int code = 0; code < 256; code++) {
        if (code % 128 == 127) {
            continue;
        }
        const float value = emu::e4m3_value(static_cast<uint8_t>(code));
        const float converted = emu::half_value(halves[code]);
        const float shifted = emu::half_value(halves[256 + code]) * 256.0f;
        expect(converted == value && shifted == value, "%02x: %g and %g, not %g", code, converted, shifted, value);
    }
}

CASE(multiply_s8, passes()) {
    const auto encode = [](float x) { return static_cast<uint8_t>(static_cast<int8_t>(x * 16.0f)); };
    const auto decode = [](uint8_t bits) { return static_cast<int>(static_cast<int8_t>(bits)); };
    check_multiply<uint8_t, int>("multiply_s8", 32, encode, decode);
}

CASE(load_matrices, passes()) {
    std::vector<uint16_t> in(4 * 64);
    for (size_t at = 0; at < in.size(); at++) {
        in[at] = static_cast<uint16_t>(at * 251);
    }
    std::vector<uint32_t> words(128 + 128 + 64 + 64);
    run("load_matrices", 1, 32, {}, static_cast<const uint16_t*>(in.data()), words.data());
    const auto element = [&](int matrix, int row, int column) { return uint32_t{in[matrix * 64 + row * 8 + column]}; };
    for (int lane = 0; lane < 32; lane++) {
        const int row = lane / 4;
        const int column = lane % 4 * 2;
        for (int matrix = 0; matrix < 4; matrix++) {
            const uint32_t straight = element(matrix, row, column) | element(matrix, row, column + 1) << 16;
            const uint32_t transposed = element(matrix, column, row) | element(matrix, column + 1, row) << 16;
            expect(words[lane * 4 + matrix] == straight, "x4: lane %d, matrix %d", lane, matrix);
            expect(words[128 + lane * 4 + matrix] == transposed, "x4.trans: lane %d, matrix %d", lane, matrix);
            if (matrix < 2) {
                expect(words[256 + lane * 2 + matrix] == straight, "x2: lane %d, matrix %d", lane, matrix);
                expect(words[320 + lane * 2 + matrix] == transposed, "x2.trans: lane %d, matrix %d", lane, matrix);
            }
        }
    }
}

CASE(load_matrix_misaligned, everywhere("a row's address is not a multiple of 16")) {
    std::vector<uint32_t> words(32);
    fail("load_matrix_misaligned", 1, 32, words.data());
}
