//! Mixtures of experts: the routing's kernels and every experts' kernel.

use crate::mixtures::CASES;

use super::*;

const FORMATS: [Format; 3] = [Format::Bf16, Format::Q4_1, Format::Q8_0];

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

#[test]
fn a_token_does_not_see_whom_its_experts_serve() {
    for (case, format) in CASES.iter().flat_map(|case| FORMATS.map(|format| (case, format))) {
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
