//! FP8 E4M3: a byte an element, 4 bits of exponent (bias 7) and 3 of mantissa; no infinities. Its scales lie beside it.
//!
//! ```text
//! bit    7     6..3      2..0
//!        sign  exponent  mantissa
//! exponent 0:               mantissa * 2^-9
//! exponent 15, mantissa 7:  NaN
//! else:                     (8 + mantissa) * 2^(exponent - 10)       largest 448
//! ```

use crate::OwnedScales;

pub const BYTES: usize = 1;
/// The largest value.
pub const MAX: f32 = 448.0;

const NAN: u8 = 0x7f;
/// Smaller magnitudes have no leading one.
const SMALLEST_NORMAL: f32 = 1.0 / 64.0;
/// Mantissa bits of f32 that an element drops.
const DROPPED: u32 = 20;
/// The exponent bias of f32 less that of an element, where the mantissa of an element begins.
const REBIAS: u32 = (127 - 7) << 3;

/// The value of one element.
pub fn decode_one(element: u8) -> f32 {
    let (exponent, mantissa) = (element >> 3 & 15, f32::from(element & 7));
    let magnitude = match (exponent, element & NAN) {
        (_, NAN) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (8.0 + mantissa) * f32::from_bits((u32::from(exponent) + 127 - 10) << 23),
    };
    if element >> 7 == 1 { -magnitude } else { magnitude }
}

/// Rounds to the nearest, ties to even; what is larger than [`MAX`] becomes it.
pub fn encode_one(value: f32) -> u8 {
    let (sign, magnitude) = (u8::from(value.is_sign_negative()) << 7, value.abs());
    let code = if value.is_nan() {
        NAN
    } else if magnitude < SMALLEST_NORMAL {
        (magnitude * 512.0).round_ties_even() as u8
    } else {
        let bits = magnitude.min(MAX).to_bits();
        let half = (1 << (DROPPED - 1)) - 1 + (bits >> DROPPED & 1);
        (((bits + half) >> DROPPED) - REBIAS) as u8
    };
    sign | code
}

pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len(), "one element per value");
    for (element, value) in bytes.iter().zip(out) {
        *value = decode_one(*element);
    }
}

pub fn encode(values: &[f32]) -> Vec<u8> {
    values.iter().map(|value| encode_one(*value)).collect()
}

/// Elements and one scale for each row of `cols` values: its largest magnitude becomes [`MAX`].
pub fn quantize_rows(values: &[f32], cols: usize) -> (Vec<u8>, OwnedScales) {
    let mut elements = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / cols.max(1));
    for row in values.chunks_exact(cols.max(1)) {
        let peak = row.iter().fold(0.0f32, |peak, value| peak.max(value.abs()));
        let scale = Some(peak / MAX).filter(|scale| *scale > 0.0).unwrap_or(1.0);
        elements.extend(row.iter().map(|value| encode_one(value / scale)));
        scales.push(scale);
    }
    (elements, OwnedScales::new(1, cols.max(1), scales))
}
