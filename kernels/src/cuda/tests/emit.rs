//! Every op that emits activations, in every set of encodings that it may be asked for, as a matmul sees them that changes nothing.

use quant::{OwnedScales, fp8_e4m3};

use super::fp8::{group, through};
use super::*;
use crate::ops::attention::{Case, Layer, PLAIN, Steps, sizes};

const ENCODINGS: [Encoding; 3] = [Encoding::Bf16, Encoding::E4m3Token, Encoding::E4m3G128];

/// Values of an op's fixed inputs: emitted as the set says, and read in one of its encodings.
type Op<'a> = &'a dyn Fn(&mut Cuda, ActSet, Encoding) -> Vec<f32>;

/// All sets of encodings but the empty one.
fn sets() -> impl Iterator<Item = ActSet> {
    (1..1 << ENCODINGS.len()).map(|bits: usize| {
        let chosen = ENCODINGS.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.fold(ActSet::EMPTY, |set, (_, encoding)| set.union(ActSet::of(encoding)))
    })
}

/// The matrix that changes nothing, for inputs in `encoding`: its products are the inputs' values, with a scale's rounding if they have one.
fn same(cuda: &mut Cuda, size: usize, encoding: Encoding) -> Weight {
    let (rows_per, cols_per) = match encoding {
        Encoding::Bf16 => return identity(cuda, size),
        Encoding::E4m3Token => (1, size),
        _ => (128, 128),
    };
    let ones = vec![1.0; size.div_ceil(rows_per) * size.div_ceil(cols_per)];
    let scales = OwnedScales::new(rows_per, cols_per, ones);
    let codes: Vec<f32> = (0..size * size).map(|at| f32::from(at / size == at % size)).collect();
    let codes = fp8_e4m3::encode(&codes);
    let stored = Stored::new(size, size, Format::Fp8E4m3, &codes).unwrap().with_scales(scales.borrow()).unwrap();
    let weight = cuda.pack(&[stored], Role::Row).unwrap();
    assert_eq!(Cuda::wants(&weight), ActSet::of(encoding));
    weight
}

/// Checks that each encoding is the same in every set. Returns them.
fn check_sets(test: &str, what: &str, op: Op<'_>) -> Option<[Vec<f32>; 3]> {
    gpu(test)?;
    let emitted = |set: ActSet, encoding: Encoding| op(&mut gpu(test).expect("as before"), set, encoding);
    let alone = ENCODINGS.map(|encoding| emitted(ActSet::of(encoding), encoding));
    for set in sets() {
        for (encoding, alone) in ENCODINGS.iter().zip(&alone).filter(|(encoding, _)| set.contains(**encoding)) {
            assert_eq!(&emitted(set, *encoding), alone, "{what}: {encoding:?} in {set:?}");
        }
    }
    Some(alone)
}

/// Checks the same, and that codes are what the host makes of the bf16.
fn check(test: &str, what: &str, cols: usize, op: Op<'_>) {
    let Some([exact, codes @ ..]) = check_sets(test, what, op) else { return };
    assert!(exact.iter().all(|x| x.is_finite()) && exact.iter().any(|x| *x != 0.0), "{what}: {exact:?}");
    for (encoding, found) in ENCODINGS[1..].iter().zip(codes) {
        let parts = exact.chunks(cols).flat_map(|row| row.chunks(group(*encoding, cols)));
        let coded = |part: &[f32]| {
            let (elements, scales) = fp8_e4m3::quantize_rows(part, part.len());
            elements.into_iter().map(move |code| fp8_e4m3::decode_one(code) * scales.values[0])
        };
        assert_eq!(found, parts.flat_map(coded).collect::<Vec<f32>>(), "{what}: {encoding:?}");
    }
}

#[test]
fn norms_emit_what_they_are_asked_for() {
    let op: Op<'_> = &|cuda, set, encoding| {
        let same = same(cuda, 144, encoding);
        through(cuda, 5, 144, Some((1, 0.0)), &mut |cuda, spec, x| {
            let act = cuda.norm(x, spec, set);
            cuda.linear(&act, &same, None)
        })
    };
    check_sets("norms_emit_what_they_are_asked_for", "norm", op);
}

#[test]
fn attention_emits_what_it_is_asked_for() {
    // Of as many tokens as leave codes to the matmul, and of more.
    let chunk: Steps<'_> = &[&[(0, 5), (1, 3)]];
    let long_chunk: Steps<'_> = &[&[(0, 14), (1, 3)]];
    let single: Steps<'_> = &[&[(0, 30), (1, 5)], &[(0, 1), (1, 1)]];
    let spans: Steps<'_> = &[&[(0, 300)], &[(0, 1)]];
    let spans_of_few: Steps<'_> = &[&[(0, 300)], &[(0, 3)]];
    let parts = [chunk, long_chunk, single].map(|steps| (steps, true));
    for (steps, apart) in
        [chunk, long_chunk, single, spans, spans_of_few].map(|steps| (steps, false)).into_iter().chain(parts)
    {
        let case = Case { heads: 9, kv_heads: 3, apart, ..PLAIN };
        let steps = case.inputs(steps);
        let (blocks, longest) = sizes(&steps);
        let op: Op<'_> = &|cuda, set, encoding| {
            let mut layer = Layer::new(cuda, &case, blocks, longest);
            let same = same(cuda, case.heads * case.dim, encoding);
            let outputs = run(cuda, &steps, &mut |cuda| {
                let act = layer.attend(cuda, set);
                cuda.linear(&act, &same, None)
            });
            outputs.into_iter().last().expect("there is a step")
        };
        let what = format!("{} tokens, apart: {apart}", steps.last().expect("there is a step").num_tokens());
        check("attention_emits_what_it_is_asked_for", &what, case.heads * case.dim, op);
    }
}

/// A gate and an up part of `rows` each, the latter's numbers of up to `size`.
pub(super) fn pair(cuda: &mut Cuda, rows: usize, cols: usize, role: Role, size: f32) -> Weight {
    let values = [(9, 1.0), (10, size)].map(|(seed, size)| {
        let values = values(&mut Random::new(seed), rows * cols);
        bytes(&values.iter().map(|x| x * size).collect::<Vec<_>>())
    });
    let parts = values.each_ref().map(|bytes| Stored::new(rows, cols, Format::F32, bytes).unwrap());
    cuda.pack(&parts, role).unwrap()
}

#[test]
fn gated_units_are_emitted_as_they_are_asked_for() {
    // The last are so small that the reciprocals of their scales are beyond f32.
    for (rows, size) in [(1, 1.0), (5, 1.0), (16, 1.0), (18, 1.0), (3, 1e-38), (17, 1e-38)] {
        let op: Op<'_> = &|cuda, set, encoding| {
            let weight = pair(cuda, 144, 64, Role::Glu, size);
            let same = same(cuda, 144, encoding);
            through(cuda, rows, 64, Some((1, 0.0)).filter(|_| rows > 1), &mut |cuda, spec, x| {
                let act = cuda.norm(x, spec, Cuda::wants(&weight));
                let act = cuda.linear_glu(&act, &weight, Activation::Silu, set);
                cuda.linear(&act, &same, None)
            })
        };
        check("gated_units_are_emitted_as_they_are_asked_for", &format!("{rows} rows"), 144, op);
    }
}

/// One expert, whose row tile is full.
#[test]
fn experts_units_are_emitted_as_they_are_asked_for() {
    let op: Op<'_> = &|cuda, set, encoding| {
        let weight = pair(cuda, 144, 64, Role::ExpertsGlu, 1.0);
        let same = same(cuda, 144, encoding);
        let logits = cuda.vector(&[0.0; 16]).unwrap();
        through(cuda, 16, 64, None, &mut |cuda, spec, x| {
            let act = cuda.norm(x, spec, Cuda::wants(&weight));
            let routing = cuda.route(&logits, &RouteSpec { num_experts: 1, top_k: 1, renormalize: true });
            let act = cuda.experts_glu(&act, &weight, &routing, Activation::Silu, set);
            cuda.linear(&act, &same, None)
        })
    };
    check("experts_units_are_emitted_as_they_are_asked_for", "experts", 144, op);
}
