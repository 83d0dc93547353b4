//! AVX2: each vector of sixteen lanes is two registers.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Op, Simd};

#[derive(Clone, Copy)]
pub(in super::super) struct Avx2;

type F = [__m256; 2];
type I = [__m256i; 2];

macro_rules! both {
    ($op:ident, $($x:expr),+) => {
        // SAFETY: the trait's caller has the features.
        unsafe { [$op($($x[0]),+), $op($($x[1]),+)] }
    };
}

/// Eight numbers to bf16, in the low halves of the lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn bf16(x: __m256) -> __m256i {
    let bits = _mm256_castps_si256(x);
    // Half a unit less one, and one more where the kept part is odd: rounds half to even.
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
    let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
    _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, is_nan))
}

/// `sum` and the products of pairs of bytes, of `a` unsigned. As written: a compiler that sees sums adds them up as a tree, whose leaves
/// it has no registers for.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(mut sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: registers only.
    unsafe {
        asm!(
            "vpmaddubsw {products}, {a}, {b}",
            "vpaddw {sum}, {sum}, {products}",
            products = out(ymm_reg) _,
            sum = inout(ymm_reg) sum,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

// SAFETY (of every block below): the trait's caller has the features and valid pointers.
impl Simd for Avx2 {
    const WIDE: bool = false;
    type F = F;
    type I = I;
    type B = I;
    /// 16 bits a pair of products: eight times 15 * 127 * 2 stays within.
    type N = I;

    #[inline(always)]
    unsafe fn call<O: Op>(op: O) {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn apart<O: Op>(op: O) {
            unsafe { op.run::<Avx2>() }
        }
        unsafe { apart(op) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))] }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> F {
        unsafe {
            let words = [_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(8).cast())];
            Self::to_f([_mm256_cvtepu8_epi32(words[0]), _mm256_cvtepu8_epi32(words[1])])
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, x: F) {
        unsafe {
            let words = _mm256_packus_epi32(bf16(x[0]), bf16(x[1]));
            _mm256_storeu_si256(p.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(words));
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        both!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        both!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        both!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        both!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        both!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        both!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        both!(_mm256_cvtps_epi32, a)
    }
    #[inline(always)]
    unsafe fn exp2i(n: I) -> F {
        let one = |n: __m256i| unsafe {
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
        };
        [one(n[0]), one(n[1])]
    }
    #[inline(always)]
    unsafe fn first(n: usize, a: F, b: F) -> F {
        let masks = unsafe {
            let n = _mm256_set1_epi32(n.min(16) as i32);
            let low = _mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            let high = _mm256_cmpgt_epi32(n, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        };
        both!(_mm256_blendv_ps, b, a, masks)
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> I {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        both!(_mm256_add_epi32, a, b)
    }
    #[inline(always)]
    unsafe fn sub_i(a: I, b: I) -> I {
        both!(_mm256_sub_epi32, a, b)
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: I) -> I {
        let count = unsafe { [_mm_cvtsi32_si128(N as i32); 2] };
        both!(_mm256_sll_epi32, a, count)
    }
    #[inline(always)]
    unsafe fn sar<const N: u32>(a: I) -> I {
        let count = unsafe { [_mm_cvtsi32_si128(N as i32); 2] };
        both!(_mm256_sra_epi32, a, count)
    }
    #[inline(always)]
    unsafe fn to_f(a: I) -> F {
        both!(_mm256_cvtepi32_ps, a)
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, a: I) {
        unsafe {
            // Packing works within 128-bit halves: 0-3 8-11 | 4-7 12-15, put in order by the permutation.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a[0], a[1]));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.cast(), bytes);
        }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> I {
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn floats(a: I) -> F {
        both!(_mm256_castsi256_ps, a)
    }
    #[inline(always)]
    unsafe fn halves(a: I) -> [F; 2] {
        let mask = unsafe { [_mm256_set1_epi32(0xffff_0000_u32 as i32); 2] };
        let first = unsafe { [_mm256_slli_epi32::<16>(a[0]), _mm256_slli_epi32::<16>(a[1])] };
        let second = both!(_mm256_and_si256, a, mask);
        unsafe { [Self::floats(first), Self::floats(second)] }
    }
    #[inline(always)]
    unsafe fn first_halves(a: I) -> I {
        let mask = unsafe { [_mm256_set1_epi32(0xffff); 2] };
        both!(_mm256_and_si256, a, mask)
    }
    /// The pair `b` is cut in a vector: a word of its own for each half would come by way of the other registers.
    #[inline(always)]
    unsafe fn dot_pairs(sum: F, a: I, b: u32) -> F {
        unsafe {
            let [first, second] = Self::halves(a);
            let b = Self::halves([_mm256_set1_epi32(b as i32); 2]);
            Self::fma(second, b[1], Self::fma(first, b[0], sum))
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: I) -> I {
        let mask = unsafe { [_mm256_set1_epi8(0x0f); 2] };
        both!(_mm256_and_si256, a, mask)
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: I) -> I {
        let shifted = unsafe { [_mm256_srli_epi16::<4>(a[0]), _mm256_srli_epi16::<4>(a[1])] };
        unsafe { Self::low_nibbles(shifted) }
    }
    #[inline(always)]
    unsafe fn nibble_zero() -> I {
        unsafe { Self::splat_i(0) }
    }
    #[inline(always)]
    unsafe fn nibble_sums(a: I) -> I {
        let ones = unsafe { [_mm256_set1_epi16(1); 2] };
        both!(_mm256_madd_epi16, a, ones)
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: I, a: I, b: i32) -> I {
        let b = unsafe { [_mm256_set1_epi32(b); 2] };
        both!(add_products, sum, a, b)
    }
    /// `|a| * (b with a's sign)`: 128 * 127 * 2 stays within 16 bits.
    #[inline(always)]
    unsafe fn dot_bytes(sum: I, a: I, b: i32) -> I {
        let dot = |a: __m256i| unsafe {
            let signed = _mm256_sign_epi8(_mm256_set1_epi32(b), a);
            _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(a), signed), _mm256_set1_epi16(1))
        };
        unsafe { Self::add_i(sum, [dot(a[0]), dot(a[1])]) }
    }
    #[inline(always)]
    unsafe fn shift_bytes(a: I) -> I {
        a
    }
    #[inline(always)]
    unsafe fn unshift(_: i32) -> I {
        unsafe { Self::splat_i(0) }
    }
    #[inline(always)]
    unsafe fn sums_i(a: I, b: I) -> [i32; 2] {
        let mut sums = [0; 2];
        for (sum, halves) in sums.iter_mut().zip([a, b]) {
            let lanes: [i32; 8] = unsafe { std::mem::transmute(_mm256_add_epi32(halves[0], halves[1])) };
            *sum = lanes.iter().sum();
        }
        sums
    }
    /// As integers, magnitudes keep their order and a NaN is the largest.
    #[inline(always)]
    unsafe fn abs_peak(a: F, b: F) -> f32 {
        unsafe {
            let mask = _mm256_set1_epi32(i32::MAX);
            let mut peak = _mm256_setzero_si256();
            for half in [a[0], a[1], b[0], b[1]] {
                peak = _mm256_max_epi32(peak, _mm256_and_si256(_mm256_castps_si256(half), mask));
            }
            let lanes: [i32; 8] = std::mem::transmute(peak);
            f32::from_bits(lanes.iter().fold(0, |peak, &lane| lane.max(peak)) as u32)
        }
    }
}
