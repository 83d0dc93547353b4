//! FP8: activations as codes against the host's own rounding, and products of codes against plain sums.

use quant::{OwnedScales, fp8_e4m3};
use tensor::Act;

use super::*;

/// A matmul of `tokens` rows by `outputs` x `inputs`, and how the weight's scales lie.
#[derive(Clone, Copy, Debug)]
struct Case {
    tokens: usize,
    outputs: usize,
    inputs: usize,
    /// Rows and columns under one scale; 0 is all.
    grid: (usize, usize),
}

const CASES: [Case; 10] = [
    Case { tokens: 1, outputs: 8, inputs: 16, grid: (1, 0) },
    Case { tokens: 3, outputs: 40, inputs: 144, grid: (0, 0) },
    Case { tokens: 16, outputs: 72, inputs: 128, grid: (1, 0) },
    Case { tokens: 17, outputs: 80, inputs: 272, grid: (1, 0) },
    Case { tokens: 5, outputs: 136, inputs: 272, grid: (128, 128) },
    Case { tokens: 67, outputs: 264, inputs: 400, grid: (128, 128) },
    Case { tokens: 18, outputs: 24, inputs: 256, grid: (1, 128) },
    // K is split: each split in a block of its own, and all in one.
    Case { tokens: 3, outputs: 72, inputs: 1088, grid: (1, 0) },
    Case { tokens: 66, outputs: 40, inputs: 1088, grid: (128, 128) },
    // The largest tile has scales of every row; those of blocks are above.
    Case { tokens: 66, outputs: 136, inputs: 144, grid: (1, 0) },
];

/// A weight's codes and scales.
struct Matrix {
    rows: usize,
    cols: usize,
    codes: Vec<u8>,
    scales: OwnedScales,
}

impl Matrix {
    fn new(random: &mut Random, rows: usize, cols: usize, grid: (usize, usize)) -> Self {
        let rows_per = if grid.0 == 0 { rows } else { grid.0 };
        let cols_per = if grid.1 == 0 { cols } else { grid.1 };
        let scales = (0..rows.div_ceil(rows_per) * cols.div_ceil(cols_per)).map(|_| 0.001 * (1.0 + random.uniform()));
        let scales = OwnedScales::new(rows_per, cols_per, scales.collect());
        let codes = fp8_e4m3::encode(&random.vector(rows * cols).iter().map(|x| x * 150.0).collect::<Vec<_>>());
        Self { rows, cols, codes, scales }
    }

    fn stored(&self) -> Stored<'_> {
        let stored = Stored::new(self.rows, self.cols, Format::Fp8E4m3, &self.codes).unwrap();
        stored.with_scales(self.scales.borrow()).unwrap()
    }
}

fn tokens(count: usize) -> StepInputs {
    StepInputs { token_ids: (0..count as u32).collect(), ..StepInputs::default() }
}

/// What `then` makes of normed rows, with the row `odd` of the table as it says.
pub(super) fn through(
    cuda: &mut Cuda,
    rows: usize,
    cols: usize,
    odd: Option<(usize, f32)>,
    then: &mut dyn FnMut(&mut Cuda, &NormSpec<Cuda>, &Buf) -> Buf,
) -> Vec<f32> {
    let mut table = values(&mut Random::new(3), rows * cols);
    if let Some((row, value)) = odd {
        table[row * cols..][..cols].fill(value);
    }
    let table = pack(cuda, &table, cols, Role::Embed);
    let gain = values(&mut Random::new(5), cols);
    let spec = NormSpec { gain: cuda.vector(&gain).unwrap(), eps: 1e-5, size: cols };
    run(cuda, &[tokens(rows)], &mut |cuda| {
        let x = cuda.embed(&table, 1.0);
        then(cuda, &spec, &x)
    })
    .remove(0)
}

/// Codes `[rows, cols]` and their values, of activations that were read back as words.
pub(super) fn decoded(words: &[f32], rows: usize, cols: usize, encoding: Encoding) -> (Vec<u8>, Vec<f32>) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (codes, scales) = (bytes[..rows * cols].to_vec(), &words[(rows * cols).next_multiple_of(16) / 4..]);
    let stride = rows.next_multiple_of(4);
    let scale = |at: usize| match encoding {
        Encoding::E4m3Token => scales[at / cols],
        _ => scales[at % cols / 128 * stride + at / cols],
    };
    let values = codes.iter().enumerate().map(|(at, &code)| fp8_e4m3::decode_one(code) * scale(at)).collect();
    (codes, values)
}

/// The columns under one scale.
pub(super) fn group(encoding: Encoding, cols: usize) -> usize {
    if encoding == Encoding::E4m3Token { cols } else { 128 }
}

const ENCODINGS: [Encoding; 2] = [Encoding::E4m3Token, Encoding::E4m3G128];

#[test]
fn norms_emit_codes_within_half_a_step_of_the_value() {
    for (encoding, (rows, cols)) in ENCODINGS.into_iter().flat_map(|e| [(1, 16), (5, 136), (3, 1200)].map(|s| (e, s))) {
        let Some(mut cuda) = gpu("norms_emit_codes_within_half_a_step_of_the_value") else { return };
        let mut emitted = |set: ActSet, encoding: Encoding| {
            through(&mut cuda, rows, cols, Some((0, 0.0)), &mut |cuda, spec, x| {
                cuda.norm(x, spec, set).get(encoding).clone()
            })
        };
        let both = ActSet::of(Encoding::Bf16).union(ActSet::of(encoding));
        let halves = emitted(both, Encoding::Bf16);
        let exact =
            halves.iter().flat_map(|word| [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(f32::from_bits));
        let exact: Vec<f32> = exact.collect();
        let words = emitted(ActSet::of(encoding), encoding);
        let (codes, found) = decoded(&words, rows, cols, encoding);
        assert_eq!(found, decoded(&emitted(both, encoding), rows, cols, encoding).1, "the same beside bf16");
        assert!(codes[..cols].iter().all(|code| code & 0x7f == 0), "zeros stay zeros");
        for (row, (found, exact)) in found.chunks(cols).zip(exact.chunks(cols)).enumerate() {
            for (found, exact) in found.chunks(group(encoding, cols)).zip(exact.chunks(group(encoding, cols))) {
                let peak = exact.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
                for (found, exact) in found.iter().zip(exact) {
                    // Half of the last of three bits, or of the smallest number; and what bf16 lost.
                    let half = (exact.abs() / 16.0).max(peak / 448.0 / 1024.0) + exact.abs() / 256.0;
                    assert!((found - exact).abs() <= half * 1.001, "{encoding:?} row {row}: {found} is not {exact}");
                }
            }
        }
    }
}

/// Codes of the input as f32, and what `op` makes of them.
fn product(
    cuda: &mut Cuda,
    case: Case,
    weight: &Weight,
    op: &mut dyn FnMut(&mut Cuda, &Act<Cuda>) -> Buf,
) -> (Vec<f32>, Vec<f32>) {
    let encoding = gemm::encoding(weight.kind);
    let Case { tokens, inputs, .. } = case;
    let mut other = gpu("a second context").expect("there was a first");
    let words = through(&mut other, tokens, inputs, None, &mut |cuda, spec, x| {
        cuda.norm(x, spec, ActSet::of(encoding)).get(encoding).clone()
    });
    let found = through(cuda, tokens, inputs, None, &mut |cuda, spec, x| {
        let act = cuda.norm(x, spec, Cuda::wants(weight));
        op(cuda, &act)
    });
    (decoded(&words, tokens, inputs, encoding).1, found)
}

/// `x w^T` in f64.
fn plain(x: &[f32], w: &[f32], cols: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32;
    x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(x, w))).collect()
}

const EXACT: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-4 };

#[test]
fn products_and_sums_are_those_of_the_codes() {
    for case in CASES {
        let Some(mut cuda) = gpu("products_and_sums_are_those_of_the_codes") else { return };
        let mut random = Random::new(7);
        let matrix = Matrix::new(&mut random, case.outputs, case.inputs, case.grid);
        let weight = cuda.pack(&[matrix.stored()], Role::Row).unwrap();
        assert!(matches!(weight.kind, Kind::Fp8(_)), "{case:?}");
        let bias = random.vector(case.outputs);
        let resident = cuda.vector(&bias).unwrap();
        let (x, found) = product(&mut cuda, case, &weight, &mut |cuda, act| {
            let onto = cuda.linear(act, &weight, Some(&resident));
            cuda.linear_add(act, &weight, None, &onto);
            onto
        });
        let products = plain(&x, &matrix.stored().dequantize(), case.inputs);
        let expected: Vec<f32> = products.iter().zip(bias.iter().cycle()).map(|(y, bias)| 2.0 * y + bias).collect();
        check_close(&format!("{case:?}"), &found, &expected, EXACT);
    }
}

#[test]
fn gated_units_are_those_of_the_codes() {
    for case in CASES {
        let Some(mut cuda) = gpu("gated_units_are_those_of_the_codes") else { return };
        let mut random = Random::new(8);
        let [gate, up] = [0, 1].map(|_| Matrix::new(&mut random, case.outputs, case.inputs, case.grid));
        let weight = cuda.pack(&[gate.stored(), up.stored()], Role::Glu).unwrap();
        let same = identity(&mut cuda, case.outputs);
        let (x, found) = product(&mut cuda, case, &weight, &mut |cuda, act| {
            let gated = cuda.linear_glu(act, &weight, Activation::Silu, Cuda::wants(&same));
            cuda.linear(&gated, &same, None)
        });
        let [gates, ups] = [gate, up].map(|part| plain(&x, &part.stored().dequantize(), case.inputs));
        let expected: Vec<f32> = gates.iter().zip(&ups).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
        check_close(&format!("{case:?}"), &found, &expected, Tolerance { absolute: 1e-3, relative: 0.005 });
    }
}

#[test]
fn a_row_of_codes_does_not_see_its_neighbours() {
    for case in [CASES[5], CASES[7], CASES[8], CASES[9]] {
        let Some(mut cuda) = gpu("a_row_of_codes_does_not_see_its_neighbours") else { return };
        let matrix = Matrix::new(&mut Random::new(7), case.outputs, case.inputs, case.grid);
        let weight = cuda.pack(&[matrix.stored()], Role::Row).unwrap();
        let table = values(&mut Random::new(3), 67 * case.inputs);
        let table = pack(&mut cuda, &table, case.inputs, Role::Embed);
        let spec = NormSpec { gain: cuda.vector(&vec![1.0; case.inputs]).unwrap(), eps: 1e-5, size: case.inputs };
        let outputs = run(&mut cuda, &[67, 64, 17, 16, 1].map(tokens), &mut |cuda| {
            let x = cuda.embed(&table, 1.0);
            let act = cuda.norm(&x, &spec, Cuda::wants(&weight));
            cuda.linear(&act, &weight, None)
        });
        for rows in &outputs {
            assert!(rows[..] == outputs[0][..rows.len()], "{case:?}: {} values", rows.len());
        }
    }
}

/// Matmuls of gated units, whose codes they make by themselves where rows are few.
struct OfUnits {
    units: Weight,
    row: Weight,
    glu: Weight,
    same: Weight,
}

impl OfUnits {
    fn new(cuda: &mut Cuda, case: Case) -> Self {
        let matrix = |seed| Matrix::new(&mut Random::new(seed), case.outputs, case.inputs, case.grid);
        let [row, gate, up] = [7, 8, 9].map(matrix);
        Self {
            units: emit::pair(cuda, case.inputs, 64, Role::Glu, 1.0),
            row: cuda.pack(&[row.stored()], Role::Row).unwrap(),
            glu: cuda.pack(&[gate.stored(), up.stored()], Role::Glu).unwrap(),
            same: identity(cuda, case.outputs),
        }
    }

    /// What is stored, added and gated, in one sum.
    fn forward(&self, cuda: &mut Cuda, act: &Act<Cuda>) -> Buf {
        let units = cuda.linear_glu(act, &self.units, Activation::Silu, Cuda::wants(&self.row));
        let codes = units.find(gemm::encoding(self.row.kind));
        assert_eq!(codes.is_none(), units.rows <= 16, "codes of {} rows", units.rows);
        let sums = cuda.linear(&units, &self.row, None);
        cuda.linear_add(&units, &self.row, None, &sums);
        let gated = cuda.linear_glu(&units, &self.glu, Activation::Silu, Cuda::wants(&self.same));
        cuda.linear_add(&gated, &self.same, None, &sums);
        sums
    }
}

#[test]
fn rows_have_the_same_bits_whoever_makes_their_codes() {
    // Scales of rows and of groups, the last of which is short; K split and not.
    for case in [CASES[3], CASES[5], CASES[7], CASES[8]] {
        let Some(mut cuda) = gpu("rows_have_the_same_bits_whoever_makes_their_codes") else { return };
        let of_units = OfUnits::new(&mut cuda, case);
        let table = pack(&mut cuda, &values(&mut Random::new(3), 67 * 64), 64, Role::Embed);
        let spec = NormSpec { gain: cuda.vector(&[1.0; 64]).unwrap(), eps: 1e-5, size: 64 };
        let outputs = run(&mut cuda, &[67, 17, 16, 5, 1].map(tokens), &mut |cuda| {
            let x = cuda.embed(&table, 1.0);
            let act = cuda.norm(&x, &spec, Cuda::wants(&of_units.units));
            of_units.forward(cuda, &act)
        });
        for rows in &outputs {
            assert!(rows[..] == outputs[0][..rows.len()], "{case:?}: {} values", rows.len());
        }
    }
}

#[test]
fn what_is_not_a_number_shows_in_its_own_row_alone() {
    let test = "what_is_not_a_number_shows_in_its_own_row_alone";
    let check = |case: Case, rows: Vec<f32>| {
        for (row, values) in rows.chunks(case.outputs).enumerate() {
            assert!(values.iter().all(|x| x.is_nan() == (row == 2)), "{case:?} row {row}");
        }
    };
    let odd = Some((2, f32::NAN));
    for case in [CASES[3], CASES[4]] {
        let (Some(mut cuda), Some(mut other)) = (gpu(test), gpu(test)) else { return };
        let matrix = Matrix::new(&mut Random::new(7), case.outputs, case.inputs, case.grid);
        let weight = cuda.pack(&[matrix.stored()], Role::Row).unwrap();
        let of_codes = through(&mut cuda, case.tokens, case.inputs, odd, &mut |cuda, spec, x| {
            let act = cuda.norm(x, spec, Cuda::wants(&weight));
            cuda.linear(&act, &weight, None)
        });
        check(case, of_codes);
        let of_units = OfUnits::new(&mut other, case);
        let of_bf16 = through(&mut other, 16, 64, odd, &mut |cuda, spec, x| {
            let act = cuda.norm(x, spec, Cuda::wants(&of_units.units));
            of_units.forward(cuda, &act)
        });
        check(case, of_bf16);
    }
}

#[test]
fn embeddings_and_odd_shapes_stay_bf16() {
    let Some(mut cuda) = gpu("embeddings_and_odd_shapes_stay_bf16") else { return };
    for (rows, cols, grid, role) in [
        (16, 32, (1, 0), Role::Embed),
        (16, 32, (1, 0), Role::Head),
        (12, 32, (1, 0), Role::Row),
        (16, 24, (1, 0), Role::Row),
        (16, 128, (1, 32), Role::Row),
    ] {
        let matrix = Matrix::new(&mut Random::new(7), rows, cols, grid);
        assert_eq!(cuda.pack(&[matrix.stored()], role).unwrap().kind, Kind::Bf16, "{rows} x {cols} {grid:?} {role:?}");
    }
}
