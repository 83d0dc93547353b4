//! Ops on rows: the table's embeddings, norms and products, and bits that stay the same in any company.

use super::*;
use crate::ops::EMULATED;
use crate::ops::products::{Op, Row, Weight, normed, rows, step};

/// How far rows of an op may be off.
fn tolerance(row: &Row) -> Tolerance {
    // Sums of K products of about 1 grow with the root of K.
    let sums = (row.inputs as f32).sqrt();
    match row.op {
        Op::Embed | Op::Gather | Op::Norm => CLOSE,
        // What bf16 leaves of a weight that has no kernel of its own.
        Op::Linear | Op::Add => Tolerance { absolute: 0.004 * sums, relative: 0.002 },
        // And of a gated unit.
        Op::Glu(_) => Tolerance { absolute: 0.01 * sums, relative: 0.01 },
    }
}

/// Blocks that have kernels of their own; others become bf16.
const FORMATS: [Format; 7] =
    [Format::F32, Format::Q4_0, Format::Q4_1, Format::Q5_1, Format::Q8_0, Format::Q4K, Format::Q6K];

/// Runs the table's rows that `picked` names; on the emulator, those that are not too much for it.
pub(super) fn agree(test: &str, picked: impl Fn(&Row) -> bool) {
    for row in rows(8).filter(picked) {
        let Some(mut cuda) = gpu(test) else { return };
        let is_bf16 = matches!(row.weight, Weight::Blocks(format) if !FORMATS.contains(&format));
        let most = if is_bf16 { EMULATED / 64 } else { EMULATED };
        if row.work() <= most || !is_emulated(&cuda) {
            row.check(&mut cuda, "cuda", tolerance(&row));
        }
    }
}

fn is_blocks(row: &Row) -> bool {
    matches!(row.weight, Weight::Blocks(_))
}

#[test]
fn rows_and_norms_agree() {
    agree("rows_and_norms_agree", |row| matches!(row.op, Op::Embed | Op::Gather | Op::Norm));
}

#[test]
fn products_agree() {
    agree("products_agree", |row| is_blocks(row) && row.op == Op::Linear);
}

#[test]
fn sums_agree() {
    agree("sums_agree", |row| is_blocks(row) && row.op == Op::Add);
}

#[test]
fn gated_units_agree() {
    agree("gated_units_agree", |row| is_blocks(row) && matches!(row.op, Op::Glu(_)));
}

#[test]
fn a_row_of_a_product_does_not_see_its_neighbours() {
    const TOKENS: [usize; 8] = [67, 65, 64, 17, 16, 15, 2, 1];
    let formats = [Format::F32, Format::Q4_1, Format::Q8_0, Format::Q4K, Format::Q6K];
    for (format, (outputs, cols)) in
        formats.into_iter().flat_map(|f| [(144, 320usize), (48, 1088)].map(|shape| (f, shape)))
    {
        let Some(mut cuda) = gpu("a_row_of_a_product_does_not_see_its_neighbours") else { return };
        let cols = cols.next_multiple_of(format.block_len());
        let weight = Weight::Blocks(format).pack(&mut cuda, Role::Column, 1, (outputs, cols));
        let (bias, gain) = (cuda.vector(&vec![0.5; outputs]).unwrap(), cuda.vector(&vec![1.0; cols]).unwrap());
        let table = values(&mut Random::new(3), TOKENS[0] * cols);
        let table = pack(&mut cuda, &table, cols, Role::Embed);
        // The last rows of the step of all.
        let found = run(&mut cuda, &TOKENS.map(step), &mut |b| {
            let x = b.embed(&table, 0.5);
            let act = normed(b, &x, &gain, cols, Cuda::wants(&weight));
            b.linear(&act, &weight, Some(&bias))
        });
        for (rows, tokens) in found.iter().zip(TOKENS) {
            let same = &found[0][(TOKENS[0] - tokens) * outputs..];
            assert!(rows == same, "{format:?} {outputs} x {cols} in a step of {tokens} rows");
        }
    }
}

#[test]
fn the_largest_tiles_give_the_bits_of_smaller_ones() {
    for (format, tokens, outputs, inputs) in [
        // K is split, and ends within a stage.
        (Format::F32, 131, 136, 1096),
        // And scales stay for several stages.
        (Format::Q4K, 66, 136, 1280),
        // More than one band of tiles.
        (Format::F32, 1100, 136, 16),
    ] {
        let row = Row { op: Op::Linear, weight: Weight::Blocks(format), tokens, outputs, inputs };
        let product = |sms| {
            let cuda = gpu("the_largest_tiles_give_the_bits_of_smaller_ones")?;
            Some(row.run(&mut Cuda { sms, ..cuda }, None).0)
        };
        let (Some(largest), Some(smaller)) = (product(1), product(usize::MAX)) else { return };
        assert!(largest == smaller, "{row:?}");
    }
}
