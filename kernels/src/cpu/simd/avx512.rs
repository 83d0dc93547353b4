//! AVX-512 with VNNI, and with the products of bf16 pairs where the processor has them.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Op, Simd, dot_halves};

#[derive(Clone, Copy)]
pub(in super::super) struct Avx512<const BF16: bool>;

// SAFETY (of every block below): the trait's caller has the features and valid pointers.
impl<const BF16: bool> Simd for Avx512<BF16> {
    const WIDE: bool = true;
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    type N = __m512i;

    #[inline(always)]
    unsafe fn call<O: Op>(op: O) {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        unsafe fn plain<O: Op>(op: O) {
            unsafe { op.run::<Avx512<false>>() }
        }
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
        unsafe fn pairs<O: Op>(op: O) {
            unsafe { op.run::<Avx512<true>>() }
        }
        unsafe { if BF16 && O::PAIRS { pairs(op) } else { plain(op) } }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, x: __m512) {
        unsafe {
            if BF16 {
                return _mm256_storeu_si256(p.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)));
            }
            let bits = _mm512_castps_si512(x);
            // Half a unit less one, and one more where the kept part is odd: rounds half to even.
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let kept = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x), rounded, quiet);
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(kept)));
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(a) }
    }
    #[inline(always)]
    unsafe fn exp2i(n: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127)))) }
    }
    #[inline(always)]
    unsafe fn first(n: usize, a: __m512, b: __m512) -> __m512 {
        let mask = if n >= 16 { u16::MAX } else { (1u16 << n) - 1 };
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn sar<const N: u32>(a: __m512i) -> __m512i {
        unsafe { _mm512_srai_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn to_f(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, a: __m512i) {
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(a)) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn floats(a: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    unsafe fn halves(a: __m512i) -> [__m512; 2] {
        unsafe {
            let second = _mm512_and_si512(a, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(a)), _mm512_castsi512_ps(second)]
        }
    }
    #[inline(always)]
    unsafe fn first_halves(a: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi32(0xffff)) }
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m512, a: __m512i, b: u32) -> __m512 {
        unsafe {
            if BF16 {
                let b = _mm512_set1_epi32(b as i32);
                _mm512_dpbf16_ps(sum, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b))
            } else {
                dot_halves::<Self>(sum, a, b)
            }
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi8(0x0f)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(0x0f)) }
    }
    #[inline(always)]
    unsafe fn nibble_zero() -> __m512i {
        unsafe { Self::splat_i(0) }
    }
    #[inline(always)]
    unsafe fn nibble_sums(a: __m512i) -> __m512i {
        a
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: __m512i, a: __m512i, b: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, a, _mm512_set1_epi32(b)) }
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: __m512i, a: __m512i, b: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, a, _mm512_set1_epi32(b)) }
    }
    /// `vpdpbusd` wants one unsigned side: `a + 128` is.
    #[inline(always)]
    unsafe fn shift_bytes(a: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn unshift(sum: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(-128 * sum) }
    }
    #[inline(always)]
    unsafe fn sums_i(a: __m512i, b: __m512i) -> [i32; 2] {
        unsafe {
            // In each quarter two sums of pairs of `a`, then two of `b`.
            let pairs = _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
            let halves = _mm256_add_epi32(_mm512_castsi512_si256(pairs), _mm512_extracti64x4_epi64::<1>(pairs));
            let quarters = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
            let sums = _mm_cvtsi128_si64(_mm_hadd_epi32(quarters, quarters));
            [sums as i32, (sums >> 32) as i32]
        }
    }
    /// As integers, magnitudes keep their order and a NaN is the largest.
    #[inline(always)]
    unsafe fn abs_peak(a: __m512, b: __m512) -> f32 {
        unsafe {
            let bits = |x: __m512| _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MAX));
            f32::from_bits(_mm512_reduce_max_epi32(_mm512_max_epi32(bits(a), bits(b))) as u32)
        }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    unsafe fn peak(a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
}
