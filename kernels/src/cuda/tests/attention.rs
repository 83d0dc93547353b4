//! Rotation, KV writes and attention, their inputs brought by `upload`: the table's rows, and bits that stay the same however tokens come.

use super::*;
use crate::ops::attention::{Case, FP8, LONG, Layer, PLAIN, Rows, Steps, layers, long, masked, mixed, sizes, wide};

/// Of 8 bits, a value that two backends see on either side of a rounding's border differs by up to an eighth of itself, and a score by
/// as much as its key.
fn tolerance(case: &Case) -> Tolerance {
    match case.dtype {
        KvDtype::Fp8 => Tolerance { absolute: 0.1, relative: 0.13 },
        _ => Tolerance { absolute: 0.03, relative: 0.03 },
    }
}

fn agree(test: &str, rows: Rows) {
    // What `caches_without_kernels_are_refused` holds.
    for (case, steps) in rows.into_iter().filter(|(case, _)| case.dim != 48) {
        let Some(mut cuda) = gpu(test) else { return };
        case.check(&mut cuda, steps, case.dtype, tolerance(&case));
    }
}

#[test]
fn long_contexts_agree() {
    agree("long_contexts_agree", long());
}

#[test]
fn spans_of_every_width_agree() {
    agree("spans_of_every_width_agree", wide());
}

#[test]
fn mixed_steps_agree() {
    agree("mixed_steps_agree", mixed());
}

#[test]
fn windows_caps_and_sinks_go_together() {
    agree("windows_caps_and_sinks_go_together", masked());
}

#[test]
fn layers_agree() {
    agree("layers_agree", layers());
}

#[test]
fn a_token_has_the_same_bits_in_a_chunk_alone_and_split_over_spans() {
    let name = "a_token_has_the_same_bits_in_a_chunk_alone_and_split_over_spans";
    for case in [PLAIN, Case { window: Some(300), sink: Some(0.5), ..PLAIN }, FP8] {
        let rows = |steps: Steps<'_>| Some(case.attended(&mut gpu(name)?, steps));
        let Some(whole) = rows(&[&[(0, 520)]]) else { return };
        let chunks = rows(LONG).expect("as before");
        let company = rows(&[&[(1, 3), (0, 518)], &[(1, 1), (0, 1)], &[(0, 1), (1, 1)]]).expect("as before");
        // A chunk that is walked, and a single token whose spans are split.
        let mixed = rows(&[&[(0, 519)], &[(1, 70), (0, 1)]]).expect("as before");
        for rows in [chunks, company, mixed] {
            for (key, row) in rows.iter().filter(|(key, _)| key.0 == 0) {
                assert_eq!(row, &whole[key.1].1, "position {} {case:?}", key.1);
            }
        }
    }
}

#[test]
fn one_launch_has_the_bits_of_two() {
    let (name, tail) = ("one_launch_has_the_bits_of_two", [&[(0, 1), (1, 1)][..]; 3]);
    let (short, long) = (&[(0, 30), (1, 254)][..], &[(0, 270), (1, 511)][..]);
    let cases = [
        (PLAIN, short),
        (Case { head_norms: true, sink: Some(0.0), ..PLAIN }, long),
        (Case { head_norms: true, ..FP8 }, short),
        (Case { dim: 80, window: Some(20), ..PLAIN }, short),
        (Case { dim: 64, heads: 9, kv_heads: 1, ..FP8 }, short),
    ];
    for (case, first) in cases {
        let steps: Vec<_> = [first].into_iter().chain(tail).collect();
        let rows = |apart: bool| Some(Case { apart, ..case }.attended(&mut gpu(name)?, &steps));
        let (Some(one), Some(two)) = (rows(false), rows(true)) else { return };
        assert_eq!(one, two, "{case:?}");
    }
}

/// Sequences that only fill up a step have slots that say so: they write nothing, see nothing, and change no neighbour.
#[test]
fn padding_attends_to_nothing() {
    let name = "padding_attends_to_nothing";
    for first in [30, 300] {
        let mut steps = PLAIN.inputs(&[&[(0, first), (1, 7)], &[(0, 1), (1, 1)]]);
        let (blocks, longest) = sizes(&steps);
        let mut padded = steps[1].clone();
        for _ in 0..3 {
            padded.token_ids.push(0);
            padded.positions.push(0);
            padded.rows.push(5);
            padded.cu_seqlens_q.push(padded.token_ids.len() as u32);
            padded.seq_lens.push(1);
            let group = &mut padded.groups[0];
            group.slot_mapping.push(GroupInputs::SKIP);
            group.block_tables.resize(group.slot_mapping.len() * group.stride, 0);
        }
        let rows = |steps: &[StepInputs]| {
            let mut cuda = gpu(name)?;
            let mut layer = Layer::new(&mut cuda, &PLAIN, blocks, longest);
            run(&mut cuda, steps, &mut |b| layer.forward(b)).pop()
        };
        let Some(alone) = rows(&steps) else { return };
        steps[1] = padded;
        let filled = rows(&steps).expect("as before");
        assert_eq!(filled[..alone.len()], alone, "after {first}");
        assert!(filled[alone.len()..].iter().all(|&x| x == 0.0), "after {first}: {:?}", &filled[alone.len()..]);
    }
}

#[test]
fn caches_without_kernels_are_refused() {
    let Some(mut cuda) = gpu("caches_without_kernels_are_refused") else { return };
    let spec = |head_dim: usize, dtype: KvDtype| CacheSpec {
        group: 0,
        layers: 3,
        num_kv_heads: 2,
        head_dim,
        block_size: 16,
        blocks: 2,
        dtype,
    };
    for (head_dim, dtype, message) in [
        (48, KvDtype::Auto, "heads of 16, 32, 64, 80, 96, 128 or 256, not 48"),
        (48, KvDtype::Fp8, "heads of 16, 32, 64, 80, 96, 128 or 256, not 48"),
        (64, KvDtype::F32, "no F32 KV cache; use bf16 or fp8"),
    ] {
        let error = cuda.new_cache(&spec(head_dim, dtype)).err().expect(message).to_string();
        assert!(error.contains(message), "{error}");
    }
    let bytes = |dtype: KvDtype| cuda.block_bytes(&spec(64, dtype));
    assert_eq!((bytes(KvDtype::Auto), bytes(KvDtype::Fp8)), (3 * 2 * 2 * 16 * 64 * 2, 3 * 2 * 2 * 16 * 64));
}
