//! What activations become where a matmul takes fewer bits of them: rounded, and f32 again.

use quant::fp8_e4m3;
use tensor::Encoding;

/// Columns under one scale of [`Encoding::E4m3G128`].
const GROUP: usize = 128;

/// Rows of `cols` values as `encoding` holds them.
///
/// FP8 has a scale for each row, or 128 columns of it, that makes the largest magnitude 448; a value is divided by it and
/// rounded to the nearest element, ties to even.
pub(super) fn rounded(encoding: Encoding, cols: usize, values: &[f32]) -> Vec<f32> {
    let group = match encoding {
        Encoding::F32 => return values.to_vec(),
        Encoding::E4m3Token => cols,
        Encoding::E4m3G128 => GROUP,
        other => panic!("the reference has no activations as {other:?}"),
    };
    values.chunks(cols).flat_map(|row| row.chunks(group)).flat_map(through_e4m3).collect()
}

fn through_e4m3(group: &[f32]) -> impl Iterator<Item = f32> {
    let (elements, scales) = fp8_e4m3::quantize_rows(group, group.len());
    elements.into_iter().map(move |element| scales.values[0] * fp8_e4m3::decode_one(element))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_groups_have_their_own_scales() {
        // The second group is a thousandth of the first; the second row is zero.
        let mut values: Vec<f32> = (0..200).map(|k| if k < 128 { 448.0 - k as f32 } else { 0.448 }).collect();
        values.resize(400, 0.0);
        let token = rounded(Encoding::E4m3Token, 200, &values);
        let groups = rounded(Encoding::E4m3G128, 200, &values);
        assert_eq!((token[0], token[16], token[150]), (448.0, 448.0, 0.4375), "steps of 32 at the top");
        assert_eq!((groups[0], groups[16], groups[127]), (448.0, 448.0, 320.0));
        assert!((groups[150] - 0.448).abs() < 1e-6, "{} is the largest of its group", groups[150]);
        assert!(token[200..].iter().chain(&groups[200..]).all(|value| *value == 0.0));
        assert_eq!(rounded(Encoding::F32, 200, &values), values);
    }
}
