//! Checkpoints' INT4 against the reference: groups of every size, zeros, columns in another order, and a row's bits in any company.

use quant::{OwnedScales, Scales};

use super::dense::{inputs, normed};
use super::*;

/// A weight of `outputs` x `inputs` in groups of `group`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    inputs: usize,
    outputs: usize,
    group: usize,
    zeros: bool,
    /// Columns are in an order of their own.
    ordered: bool,
    kind: Kind,
}

pub(super) const fn case(inputs: usize, outputs: usize, group: usize, zeros: bool, ordered: bool, kind: Kind) -> Case {
    Case { inputs, outputs, group, zeros, ordered, kind }
}

const CASES: [Case; 10] = [
    // Both kernels in the largest tiles.
    case(160, 144, 32, true, false, Kind::Int4(32)),
    case(384, 144, 128, true, true, Kind::Int4(128)),
    case(576, 80, 64, true, true, Kind::Int4(64)),
    case(640, 64, 128, false, true, Kind::Int4(128)),
    // The last group hangs over.
    case(96, 16, 64, true, false, Kind::Int4(64)),
    // One scale an output.
    case(320, 16, 320, true, false, Kind::Int4(128)),
    // K is split, within a group where it may be.
    case(1088, 72, 128, true, true, Kind::Int4(128)),
    case(1664, 48, 128, true, false, Kind::Int4(128)),
    // No kernel has groups of 16, nor 20 outputs.
    case(64, 16, 16, true, false, Kind::Bf16),
    case(64, 20, 32, true, false, Kind::Bf16),
];

/// Tokens of a step.
const TOKENS: [usize; 7] = [66, 64, 17, 16, 15, 2, 1];

/// Codes, scales of bf16, zeros, and an order that gives each group its full number of columns.
pub(super) fn part(random: &mut Random, case: Case, rows: usize) -> (Vec<u8>, OwnedScales) {
    let groups = case.inputs.div_ceil(case.group);
    let codes = (0..rows * case.inputs / 2).map(|_| random.next_u64() as u8).collect();
    let scales = (0..rows * groups).map(|_| bf16::from_f32(0.02 + random.uniform() * 0.08).to_f32()).collect();
    let zeros = case.zeros.then(|| (0..rows * groups).map(|_| (random.next_u64() % 16) as u8).collect());
    // 7 has no factor in common with any number of columns here.
    let group_of = |col: usize| (col * 7 % case.inputs / case.group) as u32;
    let group_of = case.ordered.then(|| (0..case.inputs).map(group_of).collect());
    (codes, OwnedScales { zeros, group_of, ..OwnedScales::new(1, case.group, scales) })
}

fn weight<B: Backend>(b: &mut B, case: Case, role: Role) -> B::Weight {
    let mut random = Random::new(11);
    let count = if role == Role::Glu { 2 } else { 1 };
    let rows = case.outputs / count;
    let parts: Vec<_> = (0..count).map(|_| part(&mut random, case, rows)).collect();
    let parts: Vec<_> = parts.iter().map(|(codes, scales)| stored(rows, case.inputs, codes, scales.borrow())).collect();
    b.pack(&parts, role).unwrap()
}

fn stored<'a>(rows: usize, cols: usize, codes: &'a [u8], scales: Scales<'a>) -> Stored<'a> {
    Stored::new(rows, cols, Format::Int4, codes).unwrap().with_scales(scales).unwrap()
}

/// Twice the weight's product with rows of a random table, for each of [`TOKENS`] of them.
fn products<B: Backend>(b: &mut B, case: Case, w: &B::Weight) -> Vec<Vec<f32>> {
    let table = values(&mut Random::new(13), TOKENS[0] * case.inputs);
    let table = pack(b, &table, case.inputs, Role::Embed);
    let gain = b.vector(&vec![1.0; case.inputs]).unwrap();
    run(b, &TOKENS.map(inputs), &mut |b| {
        let x = b.embed(&table, 1.0);
        let act = normed(b, &x, &gain, case.inputs, B::wants(w));
        let onto = b.linear(&act, w, None);
        b.linear_add(&act, w, None, &onto);
        onto
    })
}

#[test]
fn groups_zeros_and_orders_agree() {
    for case in CASES {
        let Some(mut cuda) = gpu("groups_zeros_and_orders_agree") else { return };
        let mut reference = Reference::new();
        let (w, expected) = (weight(&mut cuda, case, Role::Column), weight(&mut reference, case, Role::Column));
        assert_eq!(w.kind, case.kind, "{case:?}");
        assert_eq!(w.order.is_some(), case.ordered, "{case:?}");
        let (actual, expected) = (products(&mut cuda, case, &w), products(&mut reference, case, &expected));
        let tolerance = Tolerance { absolute: 0.04 * (case.inputs as f32).sqrt(), relative: 0.02 };
        for ((actual, expected), tokens) in actual.iter().zip(&expected).zip(TOKENS) {
            check_close(&format!("{case:?}, {tokens} tokens"), actual, expected, tolerance);
        }
        // The last rows of the step of all, bit by bit.
        for (rows, tokens) in actual.iter().zip(TOKENS) {
            assert!(*rows == actual[0][(TOKENS[0] - tokens) * case.outputs..], "{case:?} in a step of {tokens} rows");
        }
    }
}

#[test]
fn gated_units_agree() {
    for case in [CASES[0], CASES[1], CASES[2], CASES[7]] {
        let Some(mut cuda) = gpu("gated_units_agree") else { return };
        let tolerance = Tolerance { absolute: 0.1 * (case.inputs as f32).sqrt(), relative: 0.03 };
        let expected = gated(&mut Reference::new(), case);
        for (actual, expected) in gated(&mut cuda, case).iter().zip(&expected) {
            check_close(&format!("{case:?}"), actual, expected, tolerance);
        }
    }
}

fn gated<B: Backend>(b: &mut B, case: Case) -> Vec<Vec<f32>> {
    let (w, same) = (weight(b, case, Role::Glu), identity(b, case.outputs / 2));
    let table = values(&mut Random::new(13), 66 * case.inputs);
    let table = pack(b, &table, case.inputs, Role::Embed);
    let gain = b.vector(&vec![1.0; case.inputs]).unwrap();
    run(b, &[66, 17, 3].map(inputs), &mut |b| {
        let x = b.embed(&table, 1.0);
        let act = normed(b, &x, &gain, case.inputs, B::wants(&w));
        let units = b.linear_glu(&act, &w, Activation::Silu, B::wants(&same));
        b.linear(&units, &same, None)
    })
}

#[test]
fn groups_that_no_kernel_holds_become_bf16() {
    let codes = vec![0u8; 8 * 64 / 2];
    let values = vec![1.0f32; 8 * 2];
    let even: Vec<u32> = (0..64).map(|col| col % 2).collect();
    let other: Vec<u32> = (0..64).map(|col| col / 2 % 2).collect();
    let uneven: Vec<u32> = (0..64).map(|col| u32::from(col > 40)).collect();
    let scales = |group_of| Scales { rows_per: 1, cols_per: 32, values: &values, zeros: None, group_of };
    let part = |group_of| stored(8, 64, &codes, scales(group_of));
    for (parts, role, kind) in [
        (vec![part(None)], Role::Column, Kind::Int4(32)),
        (vec![part(Some(&even)), part(Some(&even))], Role::Column, Kind::Int4(32)),
        (vec![part(Some(&even)), part(Some(&other))], Role::Column, Kind::Bf16),
        (vec![part(Some(&even)), part(None)], Role::Column, Kind::Bf16),
        (vec![part(Some(&uneven))], Role::Column, Kind::Bf16),
        (vec![part(None)], Role::Head, Kind::Bf16),
    ] {
        assert_eq!(weight::Stack::of(&parts, role).unwrap().kind, kind, "{parts:?}");
    }
}
