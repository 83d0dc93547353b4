//! Ops on rows: embeddings, norms, matmuls and their epilogues.

use super::*;

/// A matmul of `tokens` rows by `outputs` x `inputs`.
#[derive(Clone, Copy, Debug)]
struct Shape {
    tokens: usize,
    outputs: usize,
    inputs: usize,
}

const SHAPES: [Shape; 6] = [
    Shape { tokens: 1, outputs: 16, inputs: 16 },
    Shape { tokens: 3, outputs: 48, inputs: 40 },
    Shape { tokens: 16, outputs: 96, inputs: 64 },
    Shape { tokens: 17, outputs: 80, inputs: 200 },
    Shape { tokens: 64, outputs: 128, inputs: 576 },
    Shape { tokens: 131, outputs: 144, inputs: 320 },
];

fn inputs(tokens: usize) -> StepInputs {
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
fn normed<B: Backend>(b: &mut B, x: &B::Buf, gain: &B::Buf, size: usize, set: ActSet) -> Act<B> {
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

/// Weights, bias and gain of a matmul.
fn matmul_parts<B: Backend>(b: &mut B, shape: Shape, role: Role) -> (B::Weight, B::Buf, B::Buf) {
    let mut random = Random::new(7);
    let weight = values(&mut random, shape.outputs * shape.inputs);
    let (bias, gain) = (random.vector(shape.outputs), vec![1.0; shape.inputs]);
    let weight = if role == Role::Glu {
        let (gate, up) = weight.split_at(weight.len() / 2);
        let halves = [bytes(gate), bytes(up)];
        let part = |bytes| Stored::new(shape.outputs / 2, shape.inputs, Format::F32, bytes).unwrap();
        b.pack(&[part(&halves[0]), part(&halves[1])], role).unwrap()
    } else {
        pack(b, &weight, shape.inputs, role)
    };
    (weight, b.vector(&bias).unwrap(), b.vector(&gain).unwrap())
}

fn linear<B: Backend>(b: &mut B, shape: Shape) -> Vec<f32> {
    let (weight, bias, gain) = matmul_parts(b, shape, Role::Column);
    through(b, shape, &mut |b, x| {
        let act = normed(b, x, &gain, shape.inputs, B::wants(&weight));
        b.linear(&act, &weight, Some(&bias))
    })
}

fn linear_add<B: Backend>(b: &mut B, shape: Shape) -> Vec<f32> {
    let (weight, bias, gain) = matmul_parts(b, shape, Role::Row);
    through(b, shape, &mut |b, x| {
        let act = normed(b, x, &gain, shape.inputs, B::wants(&weight));
        let onto = b.linear(&act, &weight, None);
        b.linear_add(&act, &weight, Some(&bias), &onto);
        onto
    })
}

fn linear_glu<B: Backend>(b: &mut B, shape: Shape, f: Activation) -> Vec<f32> {
    let (weight, _, gain) = matmul_parts(b, shape, Role::Glu);
    let same = identity(b, shape.outputs / 2);
    through(b, shape, &mut |b, x| {
        let act = normed(b, x, &gain, shape.inputs, B::wants(&weight));
        let gated = b.linear_glu(&act, &weight, f, B::wants(&same));
        b.linear(&gated, &same, None)
    })
}

/// Runs one op on both backends, at every shape.
macro_rules! agrees {
    ($test:ident, $scale:expr, $op:expr) => {
        #[test]
        fn $test() {
            for shape in SHAPES {
                let Some(mut cuda) = gpu(stringify!($test)) else { return };
                let (expected, actual) = ($op(&mut Reference::new(), shape), $op(&mut cuda, shape));
                // Sums of K products of about 1 grow with the root of K.
                let size = f32::max(1.0, $scale * (shape.inputs as f32).sqrt());
                let tolerance = Tolerance { absolute: CLOSE.absolute * size, relative: CLOSE.relative };
                check_close(&format!("{shape:?}"), &actual, &expected, tolerance);
            }
        }
    };
}

agrees!(embedded_and_gathered_rows_agree, 0.0, |b: &mut _, shape| embed_and_gather(b, shape));
agrees!(norms_agree, 0.0, |b: &mut _, shape| norm(b, shape));
agrees!(products_agree, 1.0, |b: &mut _, shape| linear(b, shape));
agrees!(sums_agree, 2.0, |b: &mut _, shape| linear_add(b, shape));
agrees!(silu_units_agree, 4.0, |b: &mut _, shape| linear_glu(b, shape, Activation::Silu));
agrees!(gelu_units_agree, 4.0, |b: &mut _, shape| linear_glu(b, shape, Activation::GeluTanh));

#[test]
fn a_row_of_a_product_does_not_see_its_neighbours() {
    let shape = SHAPES[5];
    let Some(mut cuda) = gpu("a_row_of_a_product_does_not_see_its_neighbours") else { return };
    let all = linear(&mut cuda, shape);
    let (weight, bias, gain) = matmul_parts(&mut cuda, shape, Role::Column);
    let table = values(&mut Random::new(3), shape.tokens * shape.inputs);
    let table = pack(&mut cuda, &table, shape.inputs, Role::Embed);
    for token in [0, 16, 64, 130u32] {
        let mut alone = gpu("a second context").expect("there was a first");
        std::mem::swap(&mut alone, &mut cuda);
        let step = StepInputs { token_ids: vec![shape.tokens as u32 - 1 - token], ..StepInputs::default() };
        let row = run(&mut alone, &[step], &mut |b| {
            let x = b.embed(&table, 0.5);
            let act = normed(b, &x, &gain, shape.inputs, Cuda::wants(&weight));
            b.linear(&act, &weight, Some(&bias))
        });
        assert_eq!(row[0], all[token as usize * shape.outputs..][..shape.outputs], "token {token}");
        std::mem::swap(&mut alone, &mut cuda);
        drop(alone);
    }
}
