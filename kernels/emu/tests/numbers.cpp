// Cases of number formats. The reference knows of a format only which values it has: the nearest of them wins, and of two
// equally near ones that with the even bits.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <utility>

#include "emu_numbers.h"
#include "emu_pairs.h"
#include "harness.h"

using namespace harness;

namespace {

// Large enough for sums and products of two such numbers without rounding.
using Exact = __float128;

struct Format {
    int exponent_bits;
    int mantissa_bits;
    bool has_infinity;

    int bias() const { return (1 << (exponent_bits - 1)) - 1; }

    // The value of bits without a sign, by the definition of the format; infinity as the power of two that it stands for.
    double value(unsigned bits) const {
        const int exponent = static_cast<int>(bits >> mantissa_bits);
        const double mantissa = bits & ((1u << mantissa_bits) - 1);
        const double one = 1 << mantissa_bits;
        if (exponent == 0) {
            return ldexp(mantissa / one, 1 - bias());
        }
        return ldexp(1.0 + mantissa / one, exponent - bias());
    }

    // Infinity, or the largest number where there is none.
    unsigned largest() const {
        const unsigned last = (1u << (exponent_bits + mantissa_bits)) - 1;
        return has_infinity ? ((1u << exponent_bits) - 1) << mantissa_bits : last - 1;
    }

    unsigned nearest(Exact x) const {
        const Exact size = x < 0 ? -x : x;
        unsigned low = 0;
        unsigned high = largest();
        if (size >= Exact(value(high))) {
            return high;
        }
        while (high - low > 1) {
            const unsigned middle = (low + high) / 2;
            (Exact(value(middle)) <= size ? low : high) = middle;
        }
        const Exact below = size - Exact(value(low));
        const Exact above = Exact(value(high)) - size;
        return below < above || (below == above && low % 2 == 0) ? low : high;
    }
};

constexpr Format BF16{8, 7, true};
constexpr Format HALF{5, 10, true};
constexpr Format E4M3{4, 3, false};

// Floats of all sizes: every 4099th pattern of bits.
template <class Check>
void sweep(Check check) {
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4099) {
        const float x = emu::same_bits<float>(static_cast<uint32_t>(bits));
        if (std::isfinite(x)) {
            check(x);
        }
    }
}

template <class Bits>
void check_encoding(const Format& format, Bits (*encode)(float), float x) {
    constexpr unsigned SIGN = 1u << (sizeof(Bits) * 8 - 1);
    const unsigned expected = format.nearest(x) | (std::signbit(x) ? SIGN : 0);
    expect(encode(x) == expected, "%a becomes %x and not %x", x, encode(x), expected);
}

// Every pattern of bits has its value, and values become their bits again.
template <class Bits>
void check_all(const Format& format, Bits (*encode)(float), float (*decode)(Bits)) {
    constexpr unsigned SIGN = 1u << (sizeof(Bits) * 8 - 1);
    for (unsigned bits = 0; bits < 2 * SIGN; bits++) {
        const unsigned size = bits & ~SIGN;
        const float found = decode(static_cast<Bits>(bits));
        if (size > format.largest()) {
            expect(std::isnan(found), "%x is %g and not NaN", bits, found);
            continue;
        }
        const bool infinite = format.has_infinity && size == format.largest();
        const double of_size = infinite ? INFINITY : format.value(size);
        expect(found == (bits & SIGN ? -of_size : of_size), "%x is %g", bits, found);
        expect(encode(found) == bits, "%x becomes %x on the way", bits, encode(found));
    }
}

template <class Number>
Number from_bits(uint16_t bits) {
    return emu::same_bits<Number>(bits);
}

// Sums, products and fused sums of random numbers are rounded once.
template <class Number>
void check_arithmetic(const Format& format) {
    std::mt19937 random_bits(5);
    // Of sizes that the reference can add without rounding.
    const unsigned smallest = format.nearest(Exact(ldexp(1.0, -20)));
    const unsigned largest = format.nearest(Exact(ldexp(1.0, 20)));
    const auto finite = [&] {
        const unsigned sign = random_bits() % 2 * 0x8000;
        return from_bits<Number>(static_cast<uint16_t>((smallest + random_bits() % (largest - smallest)) | sign));
    };
    const auto same = [&](Number found, Exact exact, const char* operation) {
        const unsigned size = emu::same_bits<uint16_t>(found) & 0x7fff;
        expect(size == format.nearest(exact), "%s gives %x and not %x", operation, size, format.nearest(exact));
    };
    for (int round = 0; round < 200000; round++) {
        const Number a = finite();
        const Number b = finite();
        const Number c = finite();
        const Exact x = float(a);
        const Exact y = float(b);
        same(__hadd(a, b), x + y, "a sum");
        same(__hsub(a, b), x - y, "a difference");
        same(__hmul(a, b), x * y, "a product");
        same(__hfma(a, b, c), x * y + Exact(float(c)), "a fused sum");
    }
}

}  // namespace

CASE(every_e4m3, passes()) {
    check_all<uint8_t>(E4M3, emu::e4m3_bits, emu::e4m3_value);
    sweep([](float x) { check_encoding<uint8_t>(E4M3, emu::e4m3_bits, x); });
    expect(emu::e4m3_bits(INFINITY) == 0x7e && emu::e4m3_bits(-INFINITY) == 0xfe, "infinity does not saturate");
    expect(emu::e4m3_bits(NAN) == 0x7f, "NaN is lost");
}

CASE(every_bf16, passes()) {
    check_all<uint16_t>(BF16, emu::bf16_bits, emu::bf16_value);
    sweep([](float x) { check_encoding<uint16_t>(BF16, emu::bf16_bits, x); });
    expect(emu::bf16_bits(NAN) == 0x7fff, "NaN is lost");
}

CASE(every_half, passes()) {
    check_all<uint16_t>(HALF, emu::half_bits, emu::half_value);
    sweep([](float x) { check_encoding<uint16_t>(HALF, emu::half_bits, x); });
    expect(emu::half_bits(NAN) == 0x7fff, "NaN is lost");
}

CASE(bf16_arithmetic, passes()) { check_arithmetic<__nv_bfloat16>(BF16); }

// The product lies half way between 3fc1 and 3fc2; the least summand decides.
CASE(bf16_fused_ties, passes()) {
    for (const auto& [summand, expected] : {std::pair{0.0f, 0x3fc2}, {0x1p-120f, 0x3fc2}, {-0x1p-120f, 0x3fc1}}) {
        const __nv_bfloat16 found = __hfma(__nv_bfloat16(1.0078125f), __nv_bfloat16(1.5f), __nv_bfloat16(summand));
        expect(found.__x == expected, "with %a it is %x", summand, found.__x);
    }
}

CASE(half_arithmetic, passes()) { check_arithmetic<__half>(HALF); }

CASE(bits_and_bytes, passes()) {
    expect(__byte_perm(0x33221100, 0x77665544, 0x7410) == 0x77441100, "__byte_perm");
    expect(__byte_perm(0x000000ff, 0, 0x8880) == 0xffffffff, "__byte_perm of signs");
    expect(__brev(1) == 0x80000000u, "__brev");
    expect(__funnelshift_l(0x80000000u, 1, 1) == 3 && __funnelshift_r(2, 1, 1) == 0x80000001u, "funnel shifts");
    expect(__dp4a(0x01ff7f80, 0x02020202, 5) == 5 + 2 * (1 - 1 + 127 - 128), "__dp4a");
    expect(__float2int_rn(2.5f) == 2 && __float2int_rn(1e20f) == 2147483647 && __float2int_rn(NAN) == 0, "__float2int_rn");
    expect(max(1.0f, NAN) == 1.0f && min(-1, 2) == -1, "min and max");
}
