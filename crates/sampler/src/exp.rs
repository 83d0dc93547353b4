//! The exponential that sampling uses: the same bits on every machine, and simple enough to vectorise.

/// 1.5 * 2^23: adding it rounds to an integer that then sits in the low bits.
const ROUND: f32 = 12_582_912.0;
const BIAS: u32 = 127;

/// `e^x` for `x <= 0`, -infinity included, to about 2^-22 of its value; 0 below -80.
///
/// `2^y = 2^n * 2^f` with `y = x * log2(e)`, `n` the nearest integer, and a polynomial for `2^f` on [-1/2, 1/2].
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let y = if x > -80.0 { x * std::f32::consts::LOG2_E } else { -125.0 };
    let rounded = y + ROUND;
    let f = y - (rounded - ROUND);
    let poly = 1.535_336e-4;
    let poly = poly * f + 1.339_887_4e-3;
    let poly = poly * f + 9.618_437e-3;
    let poly = poly * f + 5.550_332_4e-2;
    let poly = poly * f + 2.402_264_8e-1;
    let poly = poly * f + std::f32::consts::LN_2;
    let poly = poly * f + 1.0;
    let value = poly * f32::from_bits(rounded.to_bits().wrapping_add(BIAS) << 23);
    if x > -80.0 { value } else { 0.0 }
}

/// `value`, from 0 to 1, in units of 2^-40: so fine that what it leaves of a vocabulary's sum shows in no f32, so coarse that 2^24 of
/// them fit. Rounded by an addition, which vectorises.
#[inline(always)]
pub fn fine(value: f32) -> u64 {
    const ROUND: f64 = (1u64 << (52 - FINE_BITS)) as f64;
    (f64::from(value) + ROUND).to_bits().wrapping_sub(ROUND.to_bits())
}

/// The logarithm of a sum of [`fine`] values.
pub fn ln_fine(sum: u64) -> f32 {
    const UNIT: f64 = 1.0 / (1u64 << FINE_BITS) as f64;
    (sum as f64 * UNIT).ln() as f32
}

const FINE_BITS: u32 = 40;

/// 1 in fixed point.
#[cfg(test)]
const ONE: u32 = 1 << (2 * HALF_BITS);
const HALF_BITS: u32 = 15;

/// `value`, from 0 to 1, in units of 2^-30. A cast would do the same but does not vectorise: so the upper 15 bits are
/// rounded off by an addition, and then the lower ones.
#[inline(always)]
pub fn fixed(value: f32) -> u32 {
    const SCALE: f32 = (1 << HALF_BITS) as f32;
    let rounded = value * SCALE + ROUND;
    let upper = rounded.to_bits().wrapping_sub(ROUND.to_bits());
    let left = value * SCALE - (rounded - ROUND);
    let lower = (left * SCALE + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
    (upper << HALF_BITS).wrapping_add(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_point_rounds_to_its_unit() {
        for step in 0..=20_000 {
            let value = exp(-step as f32 * 1.3e-3);
            let exact = f64::from(value) * f64::from(ONE);
            assert!((f64::from(fixed(value)) - exact).abs() <= 0.5, "{value}: {} is not {exact}", fixed(value));
        }
        assert_eq!((fixed(1.0), fixed(0.0), fixed(0.5)), (ONE, 0, ONE / 2));
    }

    #[test]
    fn fine_values_are_rounded_to_the_nearest() {
        let unit = (1u64 << FINE_BITS) as f32;
        for step in 0..=20_000 {
            let value = exp(-step as f32 * 1.7e-3);
            assert_eq!(fine(value), (value * unit).round_ties_even() as u64, "{value}");
        }
        assert_eq!((ln_fine(fine(1.0)), fine(0.5)), (0.0, 1 << (FINE_BITS - 1)));
    }

    #[test]
    fn agrees_with_the_library() {
        for step in 0..=80_000 {
            let x = -step as f32 * 1e-3;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            let allowed = exact * (3e-7 + 1.2e-7 * f64::from(-x));
            assert!((ours - exact).abs() <= allowed + 2e-35, "e^{x}: {ours:e}, not {exact:e}");
        }
        assert_eq!((exp(0.0), exp(-80.5), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }
}
