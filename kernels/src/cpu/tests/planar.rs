//! Matrices whose scales lie beside their elements: packed exactly, and multiplied as the others are.

use half::bf16;
use quant::{OwnedScales, Scales};

use super::super::weight::Kind;
use super::*;

/// One scale for so many rows and columns; whether there are zeros, and an order of columns.
const GRIDS: &[(usize, usize, bool, bool)] = &[
    (1, 64, false, false),
    (40, 64, false, false),
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

/// Runs `check` on every planar format under every grid.
fn each_matrix(rows: usize, cols: usize, mut check: impl FnMut(&Stored<'_>, &str)) {
    let mut random = Random::new(21);
    for format in Format::ALL.into_iter().filter(|format| format.is_planar()) {
        let bytes = elements(format, rows * cols, &mut random);
        let plain = Stored::new(rows, cols, format, &bytes).unwrap();
        check(&plain, &format.to_string());
        for scales in scales(format, rows, cols, &mut random) {
            let stored = plain.with_scales(scales.borrow()).unwrap();
            check(
                &stored,
                &format!("{format}, {:?}", Scales { values: &[], zeros: None, group_of: None, ..scales.borrow() }),
            );
        }
    }
}

#[test]
fn packed_rows_are_exactly_the_dequantized_ones() {
    each_matrix(40, 64, |stored, what| {
        let mut cpu = cpu(Isa::Portable, 2);
        let table = cpu.pack(&[*stored], Role::Head).unwrap();
        let inputs = StepInputs { token_ids: (0..40).collect(), ..StepInputs::default() };
        let rows = run(&mut cpu, &inputs, &mut |cpu| cpu.embed(&table, 1.0));
        assert_eq!(rows, stored.dequantize(), "{what}");
    });
}

#[test]
fn matmuls_agree_with_the_dequantized_matrix() {
    for (isa, activations) in ways() {
        each_matrix(40, 64, |stored, what| {
            let x = Random::new(5).vector(3 * 64);
            let mut cpu = coded(isa, 2, activations);
            let (weight, input) = (cpu.pack(&[*stored, *stored], Role::Column).unwrap(), cpu.vector(&x).unwrap());
            let y = run(&mut cpu, &StepInputs::default(), &mut |cpu| {
                let act = encode(cpu, &input, 64, weight.wants());
                cpu.linear(&act, &weight, None)
            });
            let row = |x: &[f32]| as_encoded(x, Kind::of(stored).wants(activations.encoding()));
            let matrix = stored.dequantize();
            let expected = x.chunks(64).map(row).flat_map(|x| {
                let dots = matrix
                    .chunks(64)
                    .map(move |w| w.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum::<f64>() as f32);
                dots.collect::<Vec<f32>>().repeat(2)
            });
            let expected: Vec<f32> = expected.collect();
            let tolerance = Tolerance { absolute: 2e-3, relative: 2e-4 };
            check_close(&format!("{isa} {activations:?} {what}"), &y, &expected, tolerance);
        });
    }
}

#[test]
fn groups_of_half_scales_are_held_in_halves() {
    let bytes = [0x98; 64];
    let plain = Stored::new(2, 64, Format::Int4, &bytes).unwrap();
    for (scale, cols_per, kind) in [
        (0.5, 32, Kind::W4),
        (0.5, 64, Kind::W4),
        (1e-7, 32, Kind::W4Wide),
        (1e6, 64, Kind::W4Wide),
        (0.1, 64, Kind::W4Wide),
        (0.5, 16, Kind::F32),
    ] {
        let scales = OwnedScales::new(1, cols_per, vec![scale; 2 * 64 / cols_per]);
        assert_eq!(Kind::of(&plain.with_scales(scales.borrow()).unwrap()), kind, "{scale} for {cols_per}");
    }
}
