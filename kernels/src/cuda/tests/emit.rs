//! Every op that emits activations, in every set of encodings that it may be asked for.

use quant::fp8_e4m3;

use super::attention::{Case, Layer, PLAIN, Steps, inputs, sizes};
use super::fp8::{decoded, group, through};
use super::*;

const ENCODINGS: [Encoding; 3] = [Encoding::Bf16, Encoding::E4m3Token, Encoding::E4m3G128];

/// What an op makes of fixed inputs: one of the encodings of a set, as words.
type Op<'a> = &'a dyn Fn(&mut Cuda, ActSet, Encoding) -> Vec<f32>;

/// All sets of encodings but the empty one.
fn sets() -> impl Iterator<Item = ActSet> {
    (1..1 << ENCODINGS.len()).map(|bits: usize| {
        let chosen = ENCODINGS.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.fold(ActSet::EMPTY, |set, (_, encoding)| set.union(ActSet::of(encoding)))
    })
}

/// Codes, of those encodings that have any, and values.
type Emitted = (Vec<u8>, Vec<f32>);

fn read(words: &[f32], (rows, cols): (usize, usize), encoding: Encoding) -> Emitted {
    if encoding != Encoding::Bf16 {
        return decoded(words, rows, cols, encoding);
    }
    let halves = words.iter().flat_map(|word| [word.to_bits() << 16, word.to_bits() & 0xffff_0000]);
    (Vec::new(), halves.map(f32::from_bits).take(rows * cols).collect())
}

/// Checks that each encoding is the same in every set. Returns them.
fn check_sets(test: &str, what: &str, shape: (usize, usize), op: Op<'_>) -> Option<[Emitted; 3]> {
    gpu(test)?;
    let emitted =
        |set: ActSet, encoding: Encoding| read(&op(&mut gpu(test).expect("as before"), set, encoding), shape, encoding);
    let alone = ENCODINGS.map(|encoding| emitted(ActSet::of(encoding), encoding));
    for set in sets() {
        for (encoding, alone) in ENCODINGS.iter().zip(&alone).filter(|(encoding, _)| set.contains(**encoding)) {
            assert_eq!(&emitted(set, *encoding), alone, "{what}: {encoding:?} in {set:?}");
        }
    }
    Some(alone)
}

/// Checks the same, and that codes are what the host makes of the bf16.
fn check(test: &str, what: &str, shape: (usize, usize), op: Op<'_>) {
    let Some([(_, exact), codes @ ..]) = check_sets(test, what, shape, op) else { return };
    assert!(exact.iter().all(|x| x.is_finite()) && exact.iter().any(|x| *x != 0.0), "{what}: {exact:?}");
    for (encoding, found) in ENCODINGS[1..].iter().zip(codes) {
        let (mut codes, mut values) = (Vec::new(), Vec::new());
        for part in exact.chunks(shape.1).flat_map(|row| row.chunks(group(*encoding, shape.1))) {
            let (elements, scales) = fp8_e4m3::quantize_rows(part, part.len());
            values.extend(elements.iter().map(|code| fp8_e4m3::decode_one(*code) * scales.values[0]));
            codes.extend(elements);
        }
        assert_eq!(found, (codes, values), "{what}: {encoding:?}");
    }
}

#[test]
fn norms_emit_what_they_are_asked_for() {
    let op: Op<'_> = &|cuda, set, encoding| {
        through(cuda, 5, 144, Some((1, 0.0)), &mut |cuda, spec, x| cuda.norm(x, spec, set).get(encoding).clone())
    };
    check_sets("norms_emit_what_they_are_asked_for", "norm", (5, 144), op);
}

#[test]
fn attention_emits_what_it_is_asked_for() {
    let chunk: Steps<'_> = &[&[(0, 5), (1, 3)]];
    let single: Steps<'_> = &[&[(0, 30), (1, 5)], &[(0, 1), (1, 1)]];
    let spans: Steps<'_> = &[&[(0, 300)], &[(0, 1)]];
    for (steps, apart) in [(chunk, false), (chunk, true), (single, false), (single, true), (spans, false)] {
        let case = Case { heads: 9, kv_heads: 3, apart, ..PLAIN };
        let steps = inputs(steps);
        let (blocks, longest) = sizes(&steps);
        let op: Op<'_> = &|cuda, set, encoding| {
            let mut layer = Layer::new(cuda, &case, blocks, longest);
            let outputs = run(cuda, &steps, &mut |cuda| layer.attend(cuda, set).get(encoding).clone());
            outputs.into_iter().last().expect("there is a step")
        };
        let last = steps.last().expect("there is a step");
        let shape = (last.num_tokens(), case.heads * case.dim);
        check("attention_emits_what_it_is_asked_for", &format!("{shape:?}, apart: {apart}"), shape, op);
    }
}

/// A gate and an up part of `rows` each.
pub(super) fn pair(cuda: &mut Cuda, rows: usize, cols: usize, role: Role) -> Weight {
    let values = [9, 10].map(|seed| bytes(&values(&mut Random::new(seed), rows * cols)));
    let parts = values.each_ref().map(|bytes| Stored::new(rows, cols, Format::F32, bytes).unwrap());
    cuda.pack(&parts, role).unwrap()
}

#[test]
fn gated_units_are_emitted_as_they_are_asked_for() {
    for rows in [1, 18] {
        let op: Op<'_> = &|cuda, set, encoding| {
            let weight = pair(cuda, 144, 64, Role::Glu);
            through(cuda, rows, 64, Some((1, 0.0)).filter(|_| rows > 1), &mut |cuda, spec, x| {
                let act = cuda.norm(x, spec, Cuda::wants(&weight));
                cuda.linear_glu(&act, &weight, Activation::Silu, set).get(encoding).clone()
            })
        };
        check("gated_units_are_emitted_as_they_are_asked_for", &format!("{rows} rows"), (rows, 144), op);
    }
}

/// One expert, whose row tile is full.
#[test]
fn experts_units_are_emitted_as_they_are_asked_for() {
    let op: Op<'_> = &|cuda, set, encoding| {
        let weight = pair(cuda, 144, 64, Role::ExpertsGlu);
        let logits = cuda.vector(&[0.0; 16]).unwrap();
        through(cuda, 16, 64, None, &mut |cuda, spec, x| {
            let act = cuda.norm(x, spec, Cuda::wants(&weight));
            let routing = cuda.route(&logits, &RouteSpec { num_experts: 1, top_k: 1, renormalize: true });
            cuda.experts_glu(&act, &weight, &routing, Activation::Silu, set).get(encoding).clone()
        })
    };
    check("experts_units_are_emitted_as_they_are_asked_for", "experts", (16, 144), op);
}
