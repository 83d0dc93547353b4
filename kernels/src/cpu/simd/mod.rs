//! Sixteen lanes, on three instruction sets: what every CPU kernel is written in, once.
//!
//! A method does the same on each: integers exactly, floats up to the rounding of a fused multiply-add, which
//! [`Portable`] does not have. Kernels are `#[inline(always)]` so that they compile with the features of their caller, an [`Op`]'s
//! `run`; what several kernels share is an op of its own, compiled once for each instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
pub(super) use portable::Portable;

/// Lanes of a vector: columns of a weight tile, tokens of a key tile.
pub(super) const LANES: usize = 16;

/// One piece of work, generic over the instruction set.
pub(super) trait Op {
    /// Whether it makes or multiplies bf16, for which some processors have instructions.
    const PAIRS: bool = false;

    /// # Safety
    /// The processor has the features of `S`, and the op's own pointers are valid as its fields say.
    unsafe fn run<S: Simd>(self);
}

/// # Safety
/// Every method needs a processor with the features of the implementation, and pointers that are valid for as many
/// elements as its line says; no alignment is asked for.
pub(super) trait Simd: Copy + 'static {
    /// Whether about thirty vectors fit the registers; else about six.
    const WIDE: bool;
    /// 16 x f32.
    type F: Copy;
    /// 16 x i32.
    type I: Copy;
    /// 64 bytes.
    type B: Copy;
    /// Sums of up to eight [`Simd::dot_nibbles`].
    type N: Copy;

    /// Runs `op` in a function of its own, compiled with the features.
    unsafe fn call<O: Op>(op: O);

    unsafe fn splat(x: f32) -> Self::F;
    /// 16 x f32.
    unsafe fn load(p: *const f32) -> Self::F;
    /// 16 x f16.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// 16 x u8.
    unsafe fn load_u8(p: *const u8) -> Self::F;
    /// 16 x f32.
    unsafe fn store(p: *mut f32, x: Self::F);
    /// 16 x bf16, to the nearest, ties to even; a NaN stays one. Numbers below the normal ones may become 0.
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, x: Self::F) {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: sixteen lanes on both sides.
        unsafe {
            Self::store(lanes.as_mut_ptr(), x);
            p.cast::<[u16; LANES]>().write_unaligned(lanes.map(|lane| half::bf16::from_f32(lane).to_bits()));
        }
    }
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` where either is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest integer, ties to even; `|x|` below 2^31.
    unsafe fn round(a: Self::F) -> Self::I;
    /// `2^n`, for n from -126 to 127.
    unsafe fn exp2i(n: Self::I) -> Self::F;
    /// Lanes below `n` from `a`, the others from `b`.
    unsafe fn first(n: usize, a: Self::F, b: Self::F) -> Self::F;

    unsafe fn splat_i(x: i32) -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I;
    /// `a * 2^N`.
    unsafe fn shl<const N: u32>(a: Self::I) -> Self::I;
    /// `a / 2^N`, downwards.
    unsafe fn sar<const N: u32>(a: Self::I) -> Self::I;
    unsafe fn to_f(a: Self::I) -> Self::F;
    /// Stores the low bytes of the lanes, each from -128 to 127: 16 x i8.
    unsafe fn store_i8(p: *mut i8, a: Self::I);

    /// Asks for the cache line at `p`, which need not be valid, ahead of its use.
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        _ = p;
    }
    /// 64 bytes.
    unsafe fn load_b(p: *const u8) -> Self::B;
    /// 16 x f32.
    unsafe fn floats(a: Self::B) -> Self::F;
    /// 16 pairs of bf16: the first of each, then the second.
    unsafe fn halves(a: Self::B) -> [Self::F; 2];
    /// The pairs, with zeros for the second of each.
    unsafe fn first_halves(a: Self::B) -> Self::B;
    /// Lane `i` of the sum gains the products of the `i`-th pair of bf16 of `a` with the pair `b`. How the two are rounded is the
    /// processor's affair, the same for every lane.
    #[inline(always)]
    unsafe fn dot_pairs(sum: Self::F, a: Self::B, b: u32) -> Self::F {
        // SAFETY: lanes only.
        unsafe { dot_halves::<Self>(sum, a, b) }
    }
    unsafe fn low_nibbles(a: Self::B) -> Self::B;
    unsafe fn high_nibbles(a: Self::B) -> Self::B;
    /// Lane `i` of the sum gains the products of the unsigned bytes `4 i .. 4 i + 4` of `a`, each at most 15, with
    /// the four signed bytes of `b`.
    unsafe fn dot_nibbles(sum: Self::N, a: Self::B, b: i32) -> Self::N;
    unsafe fn nibble_zero() -> Self::N;
    unsafe fn nibble_sums(a: Self::N) -> Self::I;
    /// The same for signed bytes; those of `b` are at least -127. `a` went through [`Simd::shift_bytes`], and the sum
    /// started from [`Simd::unshift`].
    unsafe fn dot_bytes(sum: Self::I, a: Self::B, b: i32) -> Self::I;
    /// Signed bytes as `dot_bytes` takes them.
    unsafe fn shift_bytes(a: Self::B) -> Self::B;
    /// What makes up for the shift, given the sum of all the signed bytes that the shifted ones will be multiplied by.
    unsafe fn unshift(sum: i32) -> Self::I;
    /// The sum of each, whose lanes are 16-bit numbers.
    unsafe fn sums_i(a: Self::I, b: Self::I) -> [i32; 2];
    /// Largest magnitude of the lanes; NaN if one is.
    unsafe fn abs_peak(a: Self::F, b: Self::F) -> f32;

    /// Sum over the lanes, by halves: the same tree everywhere.
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        // SAFETY: the array holds sixteen lanes.
        unsafe { fold::<Self>(a, |x, y| x + y) }
    }

    /// Largest lane; a NaN may be passed over.
    #[inline(always)]
    unsafe fn peak(a: Self::F) -> f32 {
        // SAFETY: as above.
        unsafe { fold::<Self>(a, f32::max) }
    }

    /// `e^x` to about 1e-7 relative, for x up to 88; e^-87 below -87; NaN of NaN.
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        // SAFETY: lanes only.
        unsafe { exp::<Self>(x) }
    }
}

#[inline(always)]
unsafe fn fold<S: Simd>(a: S::F, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    // SAFETY: `lanes` holds sixteen.
    unsafe { S::store(lanes.as_mut_ptr(), a) };
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The pairs' products without an instruction for them: the first of each, then the second.
#[inline(always)]
unsafe fn dot_halves<S: Simd>(sum: S::F, a: S::B, b: u32) -> S::F {
    // SAFETY: lanes only.
    unsafe {
        let [first, second] = S::halves(a);
        let sum = S::fma(first, S::splat(f32::from_bits(b << 16)), sum);
        S::fma(second, S::splat(f32::from_bits(b & 0xffff_0000)), sum)
    }
}

/// `2^n * e^r` with `n = round(x / ln 2)` and a polynomial of degree 6 in `r`, `|r| <= ln 2 / 2` (Cody and Waite's
/// reduction; Taylor's coefficients are within 2e-8 there).
#[inline(always)]
unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // SAFETY: lanes only; the clamp keeps `n` within the range of `exp2i`.
    unsafe {
        let x = S::max(S::splat(-87.0), x);
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let whole = S::to_f(n);
        let r = S::fma(whole, S::splat(-LN2_HIGH), x);
        let r = S::fma(whole, S::splat(-LN2_LOW), r);
        let mut p = S::splat(1.0 / 720.0);
        for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = S::fma(p, r, S::splat(c));
        }
        S::mul(p, S::exp2i(n))
    }
}
