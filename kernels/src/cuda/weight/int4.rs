//! INT4 of checkpoints as `gemm_int4.cu` reads it: columns sorted by their group, a scale and a zero once a group.

use quant::{Scales, Stored, int4};

use super::Rows;
use super::fragments::{Fragments, Scales as Meta, TILE_ROWS};

/// Bits of a scale's word that hold the zero.
const ZERO_BITS: u32 = 15;

/// Columns that share a scale on the device; `None` where the kernels have no way to hold `parts`: groups of other sizes, orders of
/// columns that differ or leave groups of unequal size.
pub(super) fn group(parts: &[Stored<'_>], rows: usize) -> Option<usize> {
    let cols = parts[0].cols;
    let sizes = [128, 64, 32];
    let fits = |part: &Stored<'_>, size: usize| {
        part.scales.is_none_or(|scales| scales.cols_per.is_multiple_of(size) || scales.cols_per >= cols)
    };
    let is_held =
        |part: &Stored<'_>| part.format == parts[0].format && group_of(part) == group_of(&parts[0]) && is_even(part);
    let whole = rows.is_multiple_of(TILE_ROWS) && cols.is_multiple_of(32);
    let size = sizes.into_iter().find(|&size| parts.iter().all(|part| fits(part, size)));
    size.filter(|_| whole && parts.iter().all(is_held))
}

fn group_of<'a>(part: &Stored<'a>) -> Option<&'a [u32]> {
    part.scales.and_then(|scales| scales.group_of)
}

/// Whether every group has its full number of columns.
fn is_even(part: &Stored<'_>) -> bool {
    let Some(Scales { group_of: Some(groups), cols_per, .. }) = part.scales else { return true };
    let mut sorted = groups.to_vec();
    sorted.sort_unstable();
    sorted.iter().enumerate().all(|(at, &group)| group as usize == at / cols_per)
}

/// The columns by group; empty where they already are in that order.
pub(super) fn order(part: &Stored<'_>) -> Vec<u32> {
    let Some(groups) = group_of(part).filter(|groups| !groups.is_sorted()) else { return Vec::new() };
    let mut order: Vec<u32> = (0..part.cols as u32).collect();
    order.sort_by_key(|&col| groups[col as usize]);
    order
}

/// Codes, and words of scale and zero.
pub(super) fn pack(group: usize, order: &[u32], rows: &Rows<'_>, cols: usize, data: &mut [u8], meta: &mut [u8]) {
    let (mut fragments, mut meta) = (Fragments::new(4, rows.len(), data), Meta::<4>::new(rows.len(), meta));
    for (n, (part, row)) in rows.iter().enumerate() {
        let codes: Vec<u8> = part.row(*row).iter().flat_map(|byte| int4::unpack(*byte)).collect();
        if order.is_empty() {
            fragments.put(n, &codes);
        } else {
            fragments.put(n, &order.iter().map(|&col| codes[col as usize]).collect::<Vec<_>>());
        }
        for at in 0..cols.div_ceil(group) {
            let col = order.get(at * group).map_or(at * group, |&col| col as usize);
            let (scale, zero) = part.scale_and_zero(*row, col);
            meta.put(at, n, word(scale, zero as u32).to_le_bytes());
        }
    }
}

/// The scale, rounded to 20 bits, and the zero in the place of the last four.
fn word(scale: f32, zero: u32) -> u32 {
    let half = if scale.is_finite() { ZERO_BITS.div_ceil(2) } else { 0 };
    (scale.to_bits() + half) & !ZERO_BITS | zero
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn short_scales_are_exact_and_others_nearest() {
        let value = |scale: f32, zero: u32| f32::from_bits(word(scale, zero) & !ZERO_BITS);
        for scale in [0.0, 1.0, -0.01, 3e-7, 65504.0] {
            for scale in [bf16::from_f32(scale).to_f32(), f16::from_f32(scale).to_f32()] {
                assert_eq!((value(scale, 15), word(scale, 15) & ZERO_BITS), (scale, 15), "{scale}");
            }
            assert!((value(scale, 3) - scale).abs() <= scale.abs() * 2.0f32.powi(-20), "{scale}");
        }
        assert!(!value(f32::INFINITY, 15).is_finite() && !value(f32::NAN, 0).is_finite());
    }
}
