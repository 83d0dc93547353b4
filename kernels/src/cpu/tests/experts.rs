//! Mixtures of experts.

use crate::ops::mixtures::CASES;

use super::*;

#[test]
fn mixtures_agree_with_f64() {
    for (isa, activations) in ways() {
        for (case, format) in
            CASES.iter().flat_map(|case| [(case, Format::Bf16), (case, Format::Q4_1), (case, Format::Q8_0)])
        {
            let absolute = match (format, activations) {
                // 8 bits move a sum of K products by about the root of K hundredths; bf16 keeps as many of each value, not of the
                // largest of 32.
                (Format::Bf16, _) => 0.06,
                (_, Activations::Int8) => 0.25,
                (_, Activations::Int16) => 2e-3,
            };
            let actual = case.run(&mut coded(isa, 2, activations), format, &case.all());
            let what = format!("{isa} {activations:?} {format:?} {case:?}");
            check_close(&what, &actual, &case.expected(format), Tolerance { absolute, relative: 1e-3 });
        }
    }
}

#[test]
fn a_token_does_not_see_whom_its_experts_serve() {
    for (isa, activations) in ways() {
        for (case, format) in CASES.iter().flat_map(|case| [(case, Format::Bf16), (case, Format::Q4_1)]) {
            let all = case.run(&mut coded(isa, 2, activations), format, &case.all());
            for tokens in [vec![0], vec![case.tokens - 1, 0], (0..case.tokens / 2).collect()] {
                let some = case.run(&mut coded(isa, 1, activations), format, &tokens);
                for (row, token) in some.chunks(case.hidden).zip(tokens) {
                    assert_eq!(row, &all[token * case.hidden..][..case.hidden], "{isa} {format:?} {case:?} {token}");
                }
            }
        }
    }
}

#[test]
fn experts_of_unequal_shape_are_refused() {
    let bytes = [0u8; 64 * 32 * 4];
    let part = |rows: usize| Stored::new(rows, 16, Format::F32, &bytes[..rows * 64]).unwrap();
    for (parts, role) in [
        (vec![part(16), part(32)], Role::Experts),
        (vec![part(8), part(8)], Role::Experts),
        (vec![part(16); 3], Role::ExpertsGlu),
    ] {
        let error = cpu(Isa::Portable, 1).pack(&parts, role).map(drop).expect_err("no stack").to_string();
        assert!(error.contains("experts of equal rows"), "{error}");
    }
}
