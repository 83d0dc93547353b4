//! Checkpoints' INT4: which kernel takes which groups, and a row's bits in any company.

use quant::Scales;

use super::dense::agree;
use super::*;
use crate::ops::products::{Groups, Op, Row, Weight, normed, step};

/// A weight of `outputs` x `inputs`, and what it is packed as.
#[derive(Clone, Copy, Debug)]
struct Case {
    inputs: usize,
    outputs: usize,
    groups: Groups,
    kind: Kind,
}

const fn case(inputs: usize, outputs: usize, size: usize, zeros: bool, ordered: bool, kind: Kind) -> Case {
    Case { inputs, outputs, groups: Groups { size, zeros, ordered }, kind }
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

fn stored<'a>(rows: usize, cols: usize, codes: &'a [u8], scales: Scales<'a>) -> Stored<'a> {
    Stored::new(rows, cols, Format::Int4, codes).unwrap().with_scales(scales).unwrap()
}

#[test]
fn a_row_of_a_product_does_not_see_its_neighbours() {
    for case in CASES {
        let Some(mut cuda) = gpu("a_row_of_a_product_does_not_see_its_neighbours") else { return };
        let Case { inputs, outputs, groups, kind } = case;
        let weight = Weight::Int4(groups).pack(&mut cuda, Role::Column, 1, (outputs, inputs));
        assert_eq!((weight.kind, weight.order.is_some()), (kind, groups.ordered), "{case:?}");
        let table = values(&mut Random::new(13), TOKENS[0] * inputs);
        let table = pack(&mut cuda, &table, inputs, Role::Embed);
        let gain = cuda.vector(&vec![1.0; inputs]).unwrap();
        let found = run(&mut cuda, &TOKENS.map(step), &mut |b| {
            let x = b.embed(&table, 1.0);
            let act = normed(b, &x, &gain, inputs, Cuda::wants(&weight));
            b.linear(&act, &weight, None)
        });
        // The last rows of the step of all, bit by bit.
        for (rows, tokens) in found.iter().zip(TOKENS) {
            assert!(*rows == found[0][(TOKENS[0] - tokens) * outputs..], "{case:?} in a step of {tokens} rows");
        }
    }
}

fn is_int4(row: &Row) -> bool {
    matches!(row.weight, Weight::Int4(_))
}

#[test]
fn products_agree() {
    agree("products_agree", |row| is_int4(row) && matches!(row.op, Op::Linear | Op::Add));
}

#[test]
fn gated_units_agree() {
    agree("gated_units_agree", |row| is_int4(row) && matches!(row.op, Op::Glu(_)));
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
