//! The matmul with its register blocks and epilogues, and packed weights: each format's record, and the rows that `embed` reads.

use super::super::weight::Kind;
use super::*;
use crate::ops::products::{Op, rows};

pub(super) fn multiply(mut cpu: Cpu, stored: &[Stored<'_>], x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let weight = cpu.pack(stored, Role::Column).unwrap();
    let (x, bias) = (cpu.vector(x).unwrap(), bias.map(|bias| cpu.vector(bias).unwrap()));
    run(&mut cpu, &StepInputs::default(), &mut |cpu| {
        let act = encode(cpu, &x, weight.cols, weight.wants());
        cpu.linear(&act, &weight, bias.as_ref())
    })
}

/// The product in f64, of what the kernel is given.
pub(super) fn product(stored: &[Stored<'_>], activations: Activations, x: &[f32], bias: &[f32]) -> Vec<f32> {
    let cols = stored[0].cols;
    let mut y = Vec::new();
    for row in x.chunks(cols) {
        let mut bias = bias.iter();
        for part in stored {
            let row = as_encoded(row, Kind::of(part).wants(activations.encoding()));
            y.extend(part.dequantize().chunks(cols).zip(bias.by_ref().take(part.rows)).map(|(w, &bias)| {
                (w.iter().zip(&row).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(bias)) as f32
            }));
        }
    }
    y
}

#[test]
fn fused_parts_keep_their_own_formats() {
    for (isa, activations) in ways() {
        let (mut random, cols) = (Random::new(11), 256);
        let parts = [(Format::Q4K, 48), (Format::Q4K, 8), (Format::Q6K, 20), (Format::F16, 16)];
        let bytes = parts.map(|(format, rows)| matrix(format, rows, cols, &mut random));
        let stored: Vec<Stored<'_>> = (parts.iter().zip(&bytes))
            .map(|(&(format, rows), bytes)| Stored::new(rows, cols, format, bytes).unwrap())
            .collect();
        let (x, bias) = (random.vector(3 * cols), random.vector(92));
        let y = multiply(coded(isa, 2, activations), &stored, &x, Some(&bias));
        let tolerance = Tolerance { absolute: 2e-4, relative: 2e-4 };
        check_close(&isa.to_string(), &y, &product(&stored, activations, &x, &bias), tolerance);
    }
}

/// What is not in the encoding of the activations is the sum's order, and of a gated unit the exponential's.
fn tolerance(op: Op) -> Tolerance {
    match op {
        Op::Embed | Op::Gather => Tolerance { absolute: 0.0, relative: 0.0 },
        Op::Norm => Tolerance { absolute: 1e-5, relative: 1e-5 },
        Op::Linear | Op::Add => Tolerance { absolute: 2e-4, relative: 2e-4 },
        Op::Glu(_) => Tolerance { absolute: 1e-3, relative: 1e-3 },
    }
}

#[test]
fn products_agree() {
    for row in rows(16) {
        for (isa, activations) in ways() {
            row.check(&mut coded(isa, 2, activations), &format!("{isa} {activations:?}"), tolerance(row.op));
        }
    }
}

#[test]
fn rows_do_not_see_each_other() {
    for (isa, activations) in ways() {
        for (seed, format) in Format::blocks().enumerate() {
            for (rows, cols) in [(200, 16usize), (16, 32), (40, 64), (96, 576), (8, 640)] {
                let cols = cols.next_multiple_of(format.block_len());
                let mut random = Random::new(seed as u64);
                let bytes = [matrix(format, rows, cols, &mut random), matrix(format, rows, cols, &mut random)];
                let stored: Vec<Stored<'_>> =
                    bytes.iter().map(|bytes| Stored::new(rows, cols, format, bytes).unwrap()).collect();
                let (x, bias) = (random.vector(37 * cols), random.vector(2 * rows));
                let all = multiply(coded(isa, 2, activations), &stored, &x, Some(&bias));
                let mut first = 0;
                for count in [1, 2, 3, 4, 12, 15] {
                    let range = first * cols..(first + count) * cols;
                    let some = multiply(coded(isa, 1, activations), &stored, &x[range], Some(&bias));
                    let what = format!("{isa} {activations:?} {format:?} {rows} x {cols}, {count} rows from {first}");
                    assert_eq!(some, all[first * 2 * rows..][..some.len()], "{what}");
                    first += count;
                }
            }
        }
    }
}

#[test]
fn bytes_that_are_no_matrix_are_refused() {
    let bytes = [0u8; 64];
    let part = |rows: usize, cols: usize, format: Format, len: usize| Stored {
        rows,
        cols,
        format,
        bytes: &bytes[..len],
        scales: None,
    };
    let cases: [(&[Stored<'_>], Role, &str); 5] = [
        (&[], Role::Row, "at least one part"),
        (&[part(1, 8, Format::F32, 32)], Role::Row, "in multiples of 16, not 8"),
        (&[part(1, 32, Format::Q8_0, 33)], Role::Row, "1 x 32 elements of Q8_0 take 34 bytes, but there are 33"),
        (&[part(1, 16, Format::F32, 64), part(1, 32, Format::Q8_0, 34)], Role::Column, "16 and 32 columns"),
        (&[part(1, 32, Format::Q8_0, 34), part(1, 32, Format::Q8_0, 34)], Role::Glu, "of equal rows"),
    ];
    for (parts, role, message) in cases {
        let error = cpu(Isa::Portable, 1).pack(parts, role).map(drop).expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
    }
}
