//! The matmul with its register blocks and epilogues, and packed weights: each format's record, and the rows that `embed` reads.

use super::super::weight::Kind;
use super::*;

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

#[test]
fn matmuls_agree_with_f64_and_rows_do_not_see_each_other() {
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
                let what = format!("{isa} {activations:?} {format:?} {rows} x {cols}");
                check_close(
                    &what,
                    &all,
                    &product(&stored, activations, &x, &bias),
                    Tolerance { absolute: 2e-4, relative: 2e-4 },
                );
                let mut first = 0;
                for count in [1, 2, 3, 4, 12, 15] {
                    let range = first * cols..(first + count) * cols;
                    let some = multiply(coded(isa, 1, activations), &stored, &x[range], Some(&bias));
                    assert_eq!(some, all[first * 2 * rows..][..some.len()], "{what}, {count} rows from {first}");
                    first += count;
                }
            }
        }
    }
}

#[test]
fn sums_and_gates_agree_with_f64() {
    for (isa, activations) in ways() {
        for format in Format::blocks() {
            for (half_rows, cols, rows) in [(32, 64usize, 1), (48, 96, 5), (64, 576, 14)] {
                let cols = cols.next_multiple_of(format.block_len());
                let mut random = Random::new(3);
                let bytes = [(); 2].map(|()| matrix(format, half_rows, cols, &mut random));
                let stored = [&bytes[0], &bytes[1]].map(|b| Stored::new(half_rows, cols, format, b).unwrap());
                let x = random.vector(rows * cols);
                let mut cpu = coded(isa, 2, activations);
                let weight = cpu.pack(&stored, Role::Glu).unwrap();
                let input = cpu.vector(&x).unwrap();
                let gated = run(&mut cpu, &StepInputs::default(), &mut |cpu| {
                    let act = encode(cpu, &input, cols, weight.wants());
                    cpu.linear_glu(&act, &weight, Activation::Silu, ActSet::of(Encoding::F32))
                        .get(Encoding::F32)
                        .clone()
                });
                let zeros = vec![0.0; 2 * half_rows];
                let y = product(&stored, activations, &x, &zeros);
                let expected: Vec<f32> = y
                    .chunks(2 * half_rows)
                    .flat_map(|y| (0..half_rows).map(|idx| y[idx] / (1.0 + (-y[idx]).exp()) * y[half_rows + idx]))
                    .collect();
                check_close(
                    &format!("{isa} {activations:?} {format:?}"),
                    &gated,
                    &expected,
                    Tolerance { absolute: 1e-3, relative: 1e-3 },
                );
            }
        }
    }
}

#[test]
fn embedding_rows_are_exactly_the_dequantized_ones() {
    for format in Format::blocks() {
        let (mut random, cols) = (Random::new(9), 64usize.next_multiple_of(format.block_len()));
        let bytes = matrix(format, 40, cols, &mut random);
        let stored = Stored::new(40, cols, format, &bytes).unwrap();
        let mut cpu = cpu(Isa::Portable, 2);
        let table = cpu.pack(&[stored], Role::Head).unwrap();
        let inputs = StepInputs { token_ids: vec![39, 0, 17, 17], ..StepInputs::default() };
        let rows = run(&mut cpu, &inputs, &mut |cpu| cpu.embed(&table, 1.0));
        let all = stored.dequantize();
        let row = |&token: &u32| all[token as usize * cols..][..cols].to_vec();
        assert_eq!(rows, inputs.token_ids.iter().flat_map(row).collect::<Vec<f32>>(), "{format}");
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
