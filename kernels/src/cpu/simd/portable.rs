//! Plain loops over arrays: the twin that the others are tested against, and the way onto any processor.

use half::f16;

use super::{LANES, Op, Simd};

#[derive(Clone, Copy)]
pub(in super::super) struct Portable;

type F = [f32; LANES];
type I = [i32; LANES];

fn lanes<T>(lane: impl FnMut(usize) -> T) -> [T; LANES] {
    std::array::from_fn(lane)
}

// SAFETY (of every block below): the trait's caller has valid pointers.
impl Simd for Portable {
    const WIDE: bool = false;
    type F = F;
    type I = I;
    type B = [u8; 64];
    type N = I;

    #[inline(never)]
    unsafe fn call<O: Op>(op: O) {
        unsafe { op.run::<Self>() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        let halves = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        lanes(|i| f16::from_bits(halves[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> F {
        let bytes = unsafe { p.cast::<[u8; LANES]>().read_unaligned() };
        lanes(|i| f32::from(bytes[i]))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        unsafe { p.cast::<F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        lanes(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        lanes(|i| a[i].round_ties_even() as i32)
    }
    #[inline(always)]
    unsafe fn exp2i(n: I) -> F {
        lanes(|i| f32::from_bits(((n[i] + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn first(n: usize, a: F, b: F) -> F {
        lanes(|i| if i < n { a[i] } else { b[i] })
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub_i(a: I, b: I) -> I {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: I) -> I {
        a.map(|a| a << N)
    }
    #[inline(always)]
    unsafe fn sar<const N: u32>(a: I) -> I {
        a.map(|a| a >> N)
    }
    #[inline(always)]
    unsafe fn to_f(a: I) -> F {
        lanes(|i| a[i] as f32)
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, a: I) {
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(lanes(|i| a[i] as i8)) }
    }

    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> [u8; 64] {
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn floats(a: [u8; 64]) -> F {
        lanes(|i| f32::from_le_bytes([a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3]]))
    }
    #[inline(always)]
    unsafe fn halves(a: [u8; 64]) -> [F; 2] {
        [0, 2].map(|at| lanes(|i| f32::from_le_bytes([0, 0, a[4 * i + at], a[4 * i + at + 1]])))
    }
    #[inline(always)]
    unsafe fn first_halves(a: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| if i % 4 < 2 { a[i] } else { 0 })
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: [u8; 64]) -> [u8; 64] {
        a.map(|byte| byte & 15)
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: [u8; 64]) -> [u8; 64] {
        a.map(|byte| byte >> 4)
    }
    #[inline(always)]
    unsafe fn nibble_zero() -> I {
        unsafe { Self::splat_i(0) }
    }
    #[inline(always)]
    unsafe fn nibble_sums(a: I) -> I {
        a
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: I, a: [u8; 64], b: i32) -> I {
        let b = b.to_le_bytes();
        lanes(|i| (0..4).fold(sum[i], |sum, j| sum + i32::from(a[4 * i + j]) * i32::from(b[j] as i8)))
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: I, a: [u8; 64], b: i32) -> I {
        let b = b.to_le_bytes();
        lanes(|i| (0..4).fold(sum[i], |sum, j| sum + i32::from(a[4 * i + j] as i8) * i32::from(b[j] as i8)))
    }
    #[inline(always)]
    unsafe fn shift_bytes(a: [u8; 64]) -> [u8; 64] {
        a
    }
    #[inline(always)]
    unsafe fn unshift(_: i32) -> I {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn sums_i(a: I, b: I) -> [i32; 2] {
        [a.iter().sum(), b.iter().sum()]
    }
    #[inline(always)]
    unsafe fn abs_peak(a: F, b: F) -> f32 {
        f32::from_bits(a.iter().chain(&b).fold(0, |peak, x| peak.max(x.abs().to_bits())))
    }
}
