//! The matmul with its register blocks and epilogues, and the rows of packed weights that `embed` reads.

use super::*;

fn multiply(isa: Isa, threads: usize, stored: &[Stored<'_>], x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut cpu = cpu(isa, threads);
    let weight = cpu.pack(stored, Role::Column).unwrap();
    let (x, bias) = (cpu.vector(x).unwrap(), bias.map(|bias| cpu.vector(bias).unwrap()));
    run(&mut cpu, &StepInputs::default(), &mut |cpu| {
        let act = encode(cpu, &x, weight.cols, weight.wants());
        cpu.linear(&act, &weight, bias.as_ref())
    })
}

/// The product in f64, of what the kernel is given: bytes where it takes bytes.
fn product(stored: &[Stored<'_>], x: &[f32], bias: &[f32]) -> Vec<f32> {
    let cols = stored[0].cols;
    let bytes = matches!(stored[0].format, Format::Q4_0 | Format::Q4_1 | Format::Q8_0);
    let weights: Vec<f32> = stored.iter().flat_map(|part| part.dequantize()).collect();
    let mut y = Vec::new();
    for row in x.chunks(cols) {
        let row = if bytes { through_bytes(row) } else { row.iter().map(|&x| f64::from(x)).collect() };
        y.extend(weights.chunks(cols).zip(bias).map(|(w, &bias)| {
            (w.iter().zip(&row).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(bias)) as f32
        }));
    }
    y
}

#[test]
fn matmuls_agree_with_f64_and_rows_do_not_see_each_other() {
    for isa in Isa::available() {
        for (seed, format) in FORMATS.into_iter().enumerate() {
            for (rows, cols) in [(16, 32), (40, 64), (96, 576), (8, 640)] {
                let mut random = Random::new(seed as u64);
                let bytes = [matrix(format, rows, cols, &mut random), matrix(format, rows, cols, &mut random)];
                let stored: Vec<Stored<'_>> =
                    bytes.iter().map(|bytes| Stored::new(rows, cols, format, bytes).unwrap()).collect();
                let (x, bias) = (random.vector(37 * cols), random.vector(2 * rows));
                let all = multiply(isa, 2, &stored, &x, Some(&bias));
                let what = format!("{isa} {format:?} {rows} x {cols}");
                check_close(&what, &all, &product(&stored, &x, &bias), Tolerance { absolute: 2e-4, relative: 2e-4 });
                let mut first = 0;
                for count in [1, 2, 3, 4, 12, 15] {
                    let range = first * cols..(first + count) * cols;
                    let some = multiply(isa, 1, &stored, &x[range], Some(&bias));
                    assert_eq!(some, all[first * 2 * rows..][..some.len()], "{what}, {count} rows from {first}");
                    first += count;
                }
            }
        }
    }
}

#[test]
fn sums_and_gates_agree_with_f64() {
    for isa in Isa::available() {
        for format in FORMATS {
            for (half_rows, cols, rows) in [(32, 64, 1), (48, 96, 5), (64, 576, 14)] {
                let mut random = Random::new(3);
                let bytes = [(); 2].map(|()| matrix(format, half_rows, cols, &mut random));
                let stored = [&bytes[0], &bytes[1]].map(|b| Stored::new(half_rows, cols, format, b).unwrap());
                let x = random.vector(rows * cols);
                let mut cpu = cpu(isa, 2);
                let weight = cpu.pack(&stored, Role::Glu).unwrap();
                let input = cpu.vector(&x).unwrap();
                let gated = run(&mut cpu, &StepInputs::default(), &mut |cpu| {
                    let act = encode(cpu, &input, cols, weight.wants());
                    cpu.linear_glu(&act, &weight, Activation::Silu, ActSet::of(Encoding::F32))
                        .get(Encoding::F32)
                        .clone()
                });
                let zeros = vec![0.0; 2 * half_rows];
                let y = product(&stored, &x, &zeros);
                let expected: Vec<f32> = y
                    .chunks(2 * half_rows)
                    .flat_map(|y| (0..half_rows).map(|idx| y[idx] / (1.0 + (-y[idx]).exp()) * y[half_rows + idx]))
                    .collect();
                check_close(
                    &format!("{isa} {format:?}"),
                    &gated,
                    &expected,
                    Tolerance { absolute: 1e-3, relative: 1e-3 },
                );
            }
        }
    }
}

#[test]
fn embedding_rows_are_the_dequantized_ones() {
    for format in FORMATS {
        let mut random = Random::new(9);
        let bytes = matrix(format, 40, 64, &mut random);
        let stored = Stored::new(40, 64, format, &bytes).unwrap();
        let mut cpu = cpu(Isa::Portable, 2);
        let table = cpu.pack(&[stored], Role::Head).unwrap();
        let inputs = StepInputs { token_ids: vec![39, 0, 17, 17], ..StepInputs::default() };
        let rows = run(&mut cpu, &inputs, &mut |cpu| cpu.embed(&table, 1.0));
        let all = stored.dequantize();
        let expected: Vec<f32> = inputs.token_ids.iter().flat_map(|&t| all[t as usize * 64..][..64].to_vec()).collect();
        check_close(&format!("{format:?}"), &rows, &expected, Tolerance { absolute: 1e-6, relative: 1e-6 });
    }
}
