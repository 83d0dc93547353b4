//! Matrices whose scales lie beside their elements: packed exactly, and multiplied as the others are.

use half::bf16;
use quant::{OwnedScales, Scales};

use super::super::weight::Kind;
use super::matmul::{multiply, product};
use super::*;

/// Rows and columns, the columns of a model of 576 among them.
const SHAPES: [(usize, usize); 4] = [(40, 64), (16, 576), (24, 640), (8, 1152)];

/// One scale for so many rows and columns; whether there are zeros, and an order of columns.
const GRIDS: &[(usize, usize, bool, bool)] = &[
    (1, 1152, false, false),
    (40, 1152, false, false),
    (1, 128, true, false),
    (1, 64, true, false),
    (16, 32, false, false),
    (1, 32, false, false),
    (1, 32, true, false),
    (1, 16, true, false),
    (1, 32, true, true),
];

fn scales(format: Format, rows: usize, cols: usize, random: &mut Random) -> Vec<OwnedScales> {
    let int4 = format == Format::Int4;
    let grids = GRIDS.iter().filter(|(_, _, zeros, order)| int4 || !(zeros | order));
    let grid = grids.map(|&(rows_per, cols_per, zeros, order)| {
        let (groups, len) = (cols.div_ceil(cols_per), rows.div_ceil(rows_per) * cols.div_ceil(cols_per));
        let mut scale = || bf16::from_f32(0.002 * (1.5 + random.uniform())).to_f32();
        OwnedScales {
            values: (0..len).map(|_| scale()).collect(),
            zeros: zeros.then(|| (0..len).map(|_| random.below(16) as u8).collect()),
            group_of: order.then(|| (0..cols).map(|_| random.below(groups) as u32).collect()),
            ..OwnedScales::new(rows_per, cols_per, Vec::new())
        }
    });
    grid.collect()
}

/// Random elements without NaN.
fn elements(format: Format, len: usize, random: &mut Random) -> Vec<u8> {
    match format {
        Format::Fp8E4m3 => quant::fp8_e4m3::encode(&random.vector(len)),
        _ => (0..len / format.block_len()).map(|_| random.next_u64() as u8).collect(),
    }
}

/// Runs `check` on every planar format of every shape under every grid.
fn each_matrix(mut check: impl FnMut(&Stored<'_>, &str)) {
    SHAPES.iter().for_each(|&(rows, cols)| each_of(rows, cols, &mut check));
}

fn each_of(rows: usize, cols: usize, check: &mut impl FnMut(&Stored<'_>, &str)) {
    let mut random = Random::new(21);
    for format in Format::ALL.into_iter().filter(|format| format.is_planar()) {
        let bytes = elements(format, rows * cols, &mut random);
        let plain = Stored::new(rows, cols, format, &bytes).unwrap();
        check(&plain, &format.to_string());
        for scales in scales(format, rows, cols, &mut random) {
            let stored = plain.with_scales(scales.borrow()).unwrap();
            check(
                &stored,
                &format!(
                    "{rows} x {cols} of {format}, {:?}",
                    Scales { values: &[], zeros: None, group_of: None, ..scales.borrow() }
                ),
            );
        }
    }
}

#[test]
fn packed_rows_are_exactly_the_dequantized_ones() {
    each_matrix(|stored, what| {
        let mut cpu = cpu(Isa::Portable, 2);
        let table = cpu.pack(&[*stored], Role::Head).unwrap();
        let inputs = StepInputs { token_ids: (0..stored.rows as u32).collect(), ..StepInputs::default() };
        let rows = run(&mut cpu, &inputs, &mut |cpu| cpu.embed(&table, 1.0));
        assert_eq!(rows, stored.dequantize(), "{what}");
    });
}

#[test]
fn matmuls_agree_with_the_dequantized_matrix() {
    for (isa, activations) in ways() {
        each_matrix(|stored, what| {
            let (parts, bias) = ([*stored, *stored], vec![0.0; 2 * stored.rows]);
            let x = Random::new(5).vector(5 * stored.cols);
            let expected = product(&parts, activations, &x, &bias);
            for rows in [1, 3, 5] {
                let y = multiply(coded(isa, 2, activations), &parts, &x[..rows * stored.cols], None);
                let tolerance = Tolerance { absolute: 2e-3, relative: 2e-4 };
                let what = format!("{isa} {activations:?} {rows} rows by {what}");
                check_close(&what, &y, &expected[..y.len()], tolerance);
            }
        });
    }
}

#[test]
fn nibbles_take_no_more_than_their_scales_want() {
    let bytes = [0x98; 64];
    let plain = Stored::new(2, 64, Format::Int4, &bytes).unwrap();
    assert_eq!(Kind::of(&plain), Kind::W4Centered);
    for (scale, cols_per, zero, kind) in [
        (0.5, 32, None, Kind::W4Centered),
        (0.5, 64, Some(8), Kind::W4Centered),
        (0.5, 64, Some(7), Kind::W4Zeros),
        (1e-7, 32, None, Kind::W4Wide),
        (1e6, 64, Some(7), Kind::W4Wide),
        (0.1, 64, None, Kind::W4Wide),
        (0.5, 16, None, Kind::F32),
    ] {
        let len = 2 * 64 / cols_per;
        let zeros = zero.map(|zero| vec![zero; len]);
        let scales = OwnedScales { zeros, ..OwnedScales::new(1, cols_per, vec![scale; len]) };
        assert_eq!(Kind::of(&plain.with_scales(scales.borrow()).unwrap()), kind, "{scale} for {cols_per}, {zero:?}");
    }
}
