//! Ops on rows: embeddings, norms, and every epilogue of `gemm`.

use super::*;

/// How weights are stored: dense, and coded in each way that has kernels of its own.
const FORMATS: [Format; 7] =
    [Format::F32, Format::Q4_0, Format::Q4_1, Format::Q5_1, Format::Q8_0, Format::Q4K, Format::Q6K];

/// A matmul of `tokens` rows by `outputs` x `inputs`.
#[derive(Clone, Copy, Debug)]
struct Shape {
    tokens: usize,
    outputs: usize,
    inputs: usize,
}

const SHAPES: [Shape; 8] = [
    Shape { tokens: 1, outputs: 16, inputs: 16 },
    Shape { tokens: 3, outputs: 48, inputs: 40 },
    Shape { tokens: 16, outputs: 96, inputs: 64 },
    Shape { tokens: 17, outputs: 80, inputs: 200 },
    Shape { tokens: 64, outputs: 128, inputs: 576 },
    // The largest tiles.
    Shape { tokens: 67, outputs: 144, inputs: 320 },
    // K is split: each split in a block of its own, and all in one.
    Shape { tokens: 3, outputs: 80, inputs: 1088 },
    Shape { tokens: 67, outputs: 48, inputs: 1088 },
];

pub(super) fn inputs(tokens: usize) -> StepInputs {
    let logit_tokens = (0..tokens as u32).filter(|token| token % 3 != 1).collect();
    StepInputs { token_ids: (0..tokens as u32).rev().collect(), logit_tokens, ..StepInputs::default() }
}

/// Rows of a random table, through `then`.
fn through<B: Backend>(b: &mut B, shape: Shape, then: &mut dyn FnMut(&mut B, &B::Buf) -> B::Buf) -> Vec<f32> {
    let table = values(&mut Random::new(3), shape.tokens * shape.inputs);
    let table = pack(b, &table, shape.inputs, Role::Embed);
    run(b, &[inputs(shape.tokens)], &mut |b| {
        let x = b.embed(&table, 0.5);
        then(b, &x)
    })
    .remove(0)
}

/// A norm's output as the next matmul reads it.
pub(super) fn normed<B: Backend>(b: &mut B, x: &B::Buf, gain: &B::Buf, size: usize, set: ActSet) -> Act<B> {
    b.norm(x, &NormSpec { gain: gain.clone(), eps: 1e-5, size }, set)
}

fn embed_and_gather<B: Backend>(b: &mut B, shape: Shape) -> Vec<f32> {
    through(b, shape, &mut |b, x| b.gather(x))
}

fn norm<B: Backend>(b: &mut B, shape: Shape) -> Vec<f32> {
    let gain = b.vector(&Random::new(5).vector(shape.inputs)).unwrap();
    let same = identity(b, shape.inputs);
    through(b, shape, &mut |b, x| {
        let act = normed(b, x, &gain, shape.inputs, B::wants(&same));
        b.linear(&act, &same, None)
    })
}

/// Weights, bias and gain of a matmul; inputs are rounded up to the format's blocks.
fn matmul_parts<B: Backend>(b: &mut B, format: Format, shape: Shape, role: Role) -> (B::Weight, B::Buf, B::Buf) {
    let mut random = Random::new(7);
    let parts = if role == Role::Glu { 2 } else { 1 };
    let rows = shape.outputs / parts;
    let bytes: Vec<_> = (0..parts).map(|_| stored(&mut random, format, rows, shape.inputs)).collect();
    let stored: Vec<_> = bytes.iter().map(|bytes| Stored::new(rows, shape.inputs, format, bytes).unwrap()).collect();
    let weight = b.pack(&stored, role).unwrap();
    let (bias, gain) = (random.vector(shape.outputs), vec![1.0; shape.inputs]);
    (weight, b.vector(&bias).unwrap(), b.vector(&gain).unwrap())
}

fn linear<B: Backend>(b: &mut B, format: Format, shape: Shape) -> Vec<f32> {
    let (weight, bias, gain) = matmul_parts(b, format, shape, Role::Column);
    through(b, shape, &mut |b, x| {
        let act = normed(b, x, &gain, shape.inputs, B::wants(&weight));
        b.linear(&act, &weight, Some(&bias))
    })
}

fn linear_add<B: Backend>(b: &mut B, format: Format, shape: Shape) -> Vec<f32> {
    let (weight, bias, gain) = matmul_parts(b, format, shape, Role::Row);
    through(b, shape, &mut |b, x| {
        let act = normed(b, x, &gain, shape.inputs, B::wants(&weight));
        let onto = b.linear(&act, &weight, None);
        b.linear_add(&act, &weight, Some(&bias), &onto);
        onto
    })
}

fn linear_glu<B: Backend>(b: &mut B, format: Format, shape: Shape, f: Activation) -> Vec<f32> {
    let (weight, _, gain) = matmul_parts(b, format, shape, Role::Glu);
    let same = identity(b, shape.outputs / 2);
    through(b, shape, &mut |b, x| {
        let act = normed(b, x, &gain, shape.inputs, B::wants(&weight));
        let gated = b.linear_glu(&act, &weight, f, B::wants(&same));
        b.linear(&gated, &same, None)
    })
}

/// Embeddings as their format stores them.
fn embed<B: Backend>(b: &mut B, format: Format, shape: Shape) -> Vec<f32> {
    let rows = shape.tokens.next_multiple_of(8);
    let bytes = stored(&mut Random::new(9), format, rows, shape.inputs);
    let table = b.pack(&[Stored::new(rows, shape.inputs, format, &bytes).unwrap()], Role::Embed).unwrap();
    run(b, &[inputs(shape.tokens)], &mut |b| b.embed(&table, 0.5)).remove(0)
}

/// Runs one op on both backends, in each format, at every shape.
macro_rules! agrees {
    ($test:ident, $scale:expr, $op:expr) => {
        #[test]
        fn $test() {
            for (format, shape) in FORMATS.into_iter().flat_map(|format| SHAPES.map(|shape| (format, shape))) {
                let inputs = shape.inputs.next_multiple_of(format.block_len());
                let shape = Shape { inputs, ..shape };
                let Some(mut cuda) = gpu(stringify!($test)) else { return };
                let (expected, actual) = ($op(&mut Reference::new(), format, shape), $op(&mut cuda, format, shape));
                // Sums of K products of about 1 grow with the root of K.
                let size = f32::max(1.0, $scale * (inputs as f32).sqrt());
                let tolerance = Tolerance { absolute: CLOSE.absolute * size, relative: CLOSE.relative };
                check_close(&format!("{format:?} {shape:?}"), &actual, &expected, tolerance);
            }
        }
    };
}

agrees!(gathered_rows_agree, 0.0, |b: &mut _, _, shape| embed_and_gather(b, shape));
agrees!(embeddings_agree, 0.0, |b: &mut _, format, shape| embed(b, format, shape));
agrees!(norms_agree, 0.0, |b: &mut _, _, shape| norm(b, shape));
agrees!(products_agree, 1.0, |b: &mut _, format, shape| linear(b, format, shape));
agrees!(sums_agree, 2.0, |b: &mut _, format, shape| linear_add(b, format, shape));
agrees!(silu_units_agree, 6.0, |b: &mut _, format, shape| linear_glu(b, format, shape, Activation::Silu));
agrees!(gelu_units_agree, 6.0, |b: &mut _, format, shape| linear_glu(b, format, shape, Activation::GeluTanh));

#[test]
fn a_row_of_a_product_does_not_see_its_neighbours() {
    let formats = [Format::F32, Format::Q4_1, Format::Q8_0, Format::Q4K, Format::Q6K];
    for (format, shape) in formats.into_iter().flat_map(|format| [SHAPES[5], SHAPES[7]].map(|shape| (format, shape))) {
        let shape = Shape { inputs: shape.inputs.next_multiple_of(format.block_len()), ..shape };
        let Some(mut cuda) = gpu("a_row_of_a_product_does_not_see_its_neighbours") else { return };
        let (weight, bias, gain) = matmul_parts(&mut cuda, format, shape, Role::Column);
        let table = values(&mut Random::new(3), shape.tokens * shape.inputs);
        let table = pack(&mut cuda, &table, shape.inputs, Role::Embed);
        // The last rows of the step of all.
        let steps = [shape.tokens, 65, 64, 17, 16, 15, 2, 1].map(inputs);
        let outputs = run(&mut cuda, &steps, &mut |b| {
            let x = b.embed(&table, 0.5);
            let act = normed(b, &x, &gain, shape.inputs, Cuda::wants(&weight));
            b.linear(&act, &weight, Some(&bias))
        });
        for (rows, step) in outputs.iter().zip(&steps) {
            let same = &outputs[0][(shape.tokens - step.num_tokens()) * shape.outputs..];
            assert!(rows == same, "{format:?} {shape:?} in a step of {} rows", step.num_tokens());
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
        let product = |sms| {
            let cuda = gpu("the_largest_tiles_give_the_bits_of_smaller_ones")?;
            Some(linear(&mut Cuda { sms, ..cuda }, format, Shape { tokens, outputs, inputs }))
        };
        let (Some(largest), Some(smaller)) = (product(1), product(usize::MAX)) else { return };
        assert!(largest == smaller, "{format:?} {tokens} x {outputs} x {inputs}");
    }
}
