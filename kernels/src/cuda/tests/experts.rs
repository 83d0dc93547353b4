//! Mixtures of experts: the routing's kernels and every experts' kernel.

use crate::ops::mixtures::{CASES, Matrix, Mixture, PLAIN, SCALED_CASES, stacks};

use super::*;
use crate::ops::products::{Groups, Weight};

const FORMATS: [Format; 3] = [Format::Bf16, Format::Q4_1, Format::Q8_0];

fn cases() -> impl Iterator<Item = (Mixture, Format)> {
    let plain = CASES.iter().flat_map(|case| FORMATS.map(|format| (*case, format)));
    plain.chain(SCALED_CASES.map(|case| (case, Format::Fp8E4m3)))
}

#[test]
fn mixtures_agree() {
    for (case, format) in CASES.iter().flat_map(|case| FORMATS.map(|format| (case, format))) {
        let Some(mut cuda) = gpu("mixtures_agree") else { return };
        let actual = case.run(&mut cuda, format, &case.all());
        // bf16 between gate and down moves sums of K products by the root of K of its steps.
        let tolerance = Tolerance { absolute: CLOSE.absolute * 4.0, relative: CLOSE.relative };
        check_close(&format!("{format:?} {case:?}"), &actual, &case.expected(format), tolerance);
    }
}

/// Experts of codes that a file brings and nobody makes here: super-blocks, or INT4 in groups of `group`, with columns in an order of
/// their own where it is `ordered`.
fn coded(case: &Mixture, format: Format, group: usize, ordered: bool) -> Vec<[Matrix; 3]> {
    let mut random = Random::new(29);
    let weight = match format {
        Format::Int4 => Weight::Int4(Groups { size: group, zeros: true, ordered }),
        _ => Weight::Blocks(format),
    };
    let mut matrix = |rows: usize, cols: usize| weight.part(&mut random, rows, cols);
    let (hidden, ffn) = (case.hidden, case.ffn);
    (0..case.experts).map(|_| [matrix(ffn, hidden), matrix(ffn, hidden), matrix(hidden, ffn)]).collect()
}

#[test]
fn experts_of_codes_agree() {
    let small = Mixture { experts: 2, top_k: 1, hidden: 256, ffn: 256, ..PLAIN };
    let kinds = [
        (Format::Q4K, 0, false, Kind::Q4K),
        (Format::Q6K, 0, false, Kind::Q6K),
        (Format::Int4, 32, false, Kind::Int4(32)),
        (Format::Int4, 64, false, Kind::Int4(64)),
        (Format::Int4, 128, false, Kind::Int4(128)),
        // The experts share their inputs, which cannot be in every expert's order.
        (Format::Int4, 128, true, Kind::Bf16),
    ];
    for ((format, group, ordered, kind), tokens) in
        kinds.into_iter().flat_map(|kind| [3, 130].map(|tokens| (kind, tokens)))
    {
        let Some(mut cuda) = gpu("experts_of_codes_agree") else { return };
        let case = Mixture { tokens, ..small };
        let matrices = coded(&case, format, group, ordered);
        let expected = case.expected_stored(&matrices);
        let size = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
        let tolerance = Tolerance { absolute: 0.03 * size, relative: CLOSE.relative };
        let kinds = stacks(&mut cuda, &matrices).map(|weight| weight.kind);
        assert_eq!(kinds, [kind; 2], "{format:?} {group}");
        let actual = case.run_stored(&mut cuda, &matrices, &case.all());
        check_close(&format!("{format:?} {group} {case:?}"), &actual, &expected, tolerance);
    }
}

#[test]
fn a_token_does_not_see_whom_its_experts_serve() {
    for (case, format) in cases() {
        let Some(mut cuda) = gpu("a_token_does_not_see_whom_its_experts_serve") else { return };
        let all = case.run(&mut cuda, format, &case.all());
        for tokens in [vec![0], (0..case.tokens / 2).rev().collect()] {
            let some = case.run(&mut gpu("a second context").expect("there was a first"), format, &tokens);
            for (row, token) in some.chunks(case.hidden).zip(tokens) {
                assert_eq!(row, &all[token * case.hidden..][..case.hidden], "{format:?} {case:?} token {token}");
            }
        }
    }
}

/// How far a row is from what is expected, as a share of it.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(found, expected)| found - expected))
        / norm(&mut expected.iter().copied())
}

/// The reference rounds inputs to codes too, but from other last bits: some units end on the other side of a tie, by a sixteenth of themselves.
#[test]
fn mixtures_of_codes_agree_with_the_reference() {
    for case in SCALED_CASES {
        let Some(mut cuda) = gpu("mixtures_of_codes_agree_with_the_reference") else { return };
        let format = Format::Fp8E4m3;
        let kinds = case.pack(&mut cuda, format).map(|weight| weight.kind);
        assert!(kinds.iter().all(|kind| matches!(kind, Kind::Fp8(_))), "{case:?}: {kinds:?}");
        let expected = case.run(&mut Reference::new(), format, &case.all());
        let actual = case.run(&mut cuda, format, &case.all());
        for (row, expected) in expected.chunks(case.hidden).enumerate() {
            let distance = distance(&actual[row * case.hidden..][..case.hidden], expected);
            assert!(distance < 0.06, "{case:?}: row {row} is off by {distance}");
        }
    }
}
