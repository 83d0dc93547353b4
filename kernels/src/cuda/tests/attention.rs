//! Rotation, KV writes and attention over several steps, their inputs brought by `upload`: chunks, single tokens, and both in one step.

use super::*;

const BLOCK_SIZE: usize = 16;
const VOCAB: usize = 97;

/// One layer's attention, and the steps that its sequences take.
#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    head_norms: bool,
}

const PLAIN: Case = Case { heads: 4, kv_heads: 2, dim: 16, window: None, softcap: None, head_norms: false };

/// (sequence, tokens) of each step.
type Steps<'a> = &'a [&'a [(usize, usize)]];

/// Inputs of each step: every sequence's blocks lie scattered.
fn inputs(steps: Steps<'_>) -> Vec<StepInputs> {
    let sequences = 1 + steps.iter().flat_map(|step| step.iter()).map(|&(seq, _)| seq).max().unwrap();
    let mut lens = vec![0; sequences];
    let total = |seq: usize| -> usize {
        steps.iter().flat_map(|step| step.iter()).filter(|work| work.0 == seq).map(|work| work.1).sum()
    };
    let stride = (0..sequences).map(|seq| total(seq).div_ceil(BLOCK_SIZE)).max().unwrap();
    let block = |seq: usize, idx: usize| (1 + (stride - 1 - idx) * sequences + seq) as u32;
    let step = |step: &&[(usize, usize)]| {
        let mut inputs =
            StepInputs { cu_seqlens_q: vec![0], groups: vec![GroupInputs::default()], ..StepInputs::default() };
        inputs.groups[0].stride = stride;
        for &(seq, len) in step.iter() {
            for position in lens[seq]..lens[seq] + len {
                inputs.token_ids.push(((seq * 31 + position * 7) % VOCAB) as u32);
                inputs.positions.push(position as u32);
                let slot = block(seq, position / BLOCK_SIZE) as usize * BLOCK_SIZE + position % BLOCK_SIZE;
                inputs.groups[0].slot_mapping.push(slot as u32);
            }
            lens[seq] += len;
            inputs.rows.push(seq as u32);
            inputs.cu_seqlens_q.push(inputs.token_ids.len() as u32);
            inputs.seq_lens.push(lens[seq] as u32);
            let used = lens[seq].div_ceil(BLOCK_SIZE);
            inputs.groups[0].block_tables.extend((0..stride).map(|idx| if idx < used { block(seq, idx) } else { 0 }));
        }
        inputs
    };
    steps.iter().map(step).collect()
}

/// The attended row of each (sequence, position), in the order of the steps.
fn attended<B: Backend>(b: &mut B, case: &Case, steps: Steps<'_>) -> Vec<((usize, usize), Vec<f32>)> {
    let &Case { heads, kv_heads, dim, window, softcap, head_norms } = case;
    let mut random = Random::new(11);
    let (hidden, width) = (32, heads * dim);
    let table = values(&mut random, VOCAB * hidden);
    let qkv = values(&mut random, (heads + 2 * kv_heads) * dim * hidden);
    let gains: Vec<f32> = random.vector(dim).iter().map(|x| 1.0 + 0.1 * x).collect();
    let table = pack(b, &table, hidden, Role::Embed);
    let qkv = pack(b, &qkv.iter().map(|x| x * 0.25).collect::<Vec<_>>(), hidden, Role::Column);
    let same = identity(b, width);
    let ones = b.vector(&vec![1.0; hidden]).unwrap();
    let steps_inputs = inputs(steps);
    let longest = steps_inputs.iter().flat_map(|step| step.positions.iter()).max().map_or(0, |&last| last as usize + 1);
    let angle = |at: usize| (at / (dim / 2)) as f32 * 0.9f32.powi((at % (dim / 2)) as i32);
    let rope = b.rope_table(&RopeTable {
        cos: (0..longest * dim / 2).map(|at| angle(at).cos()).collect(),
        sin: (0..longest * dim / 2).map(|at| angle(at).sin()).collect(),
        rotary_dim: dim,
    });
    let blocks =
        1 + steps_inputs[0].groups[0].stride * (1 + steps.iter().flat_map(|s| s.iter()).map(|w| w.0).max().unwrap());
    let spec = CacheSpec {
        group: 0,
        layers: 2,
        num_kv_heads: kv_heads,
        head_dim: dim,
        block_size: BLOCK_SIZE,
        blocks,
        dtype: KvDtype::Auto,
    };
    let mut cache = b.new_cache(&spec).unwrap();
    let head_norm = |b: &mut B| head_norms.then(|| NormSpec { gain: b.vector(&gains).unwrap(), eps: 1e-5, size: dim });
    let qkv_spec = QkvSpec {
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim: dim,
        q_norm: head_norm(b),
        k_norm: head_norm(b),
        rope: rope.unwrap(),
        rotary_dim: dim,
        kv_scales: KvScales::default(),
    };
    let scale = 1.0 / (dim as f32).sqrt();
    let spec = AttnSpec {
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim: dim,
        scale,
        window,
        softcap,
        sinks: None,
        kv_scales: KvScales::default(),
    };
    let outputs = run(b, &steps_inputs, &mut |b| {
        let x = b.embed(&table, 1.0);
        let act = b.norm(&x, &NormSpec { gain: ones.clone(), eps: 1e-5, size: hidden }, B::wants(&qkv));
        let rows = b.linear(&act, &qkv, None);
        let q = b.rope_write(&rows, &qkv_spec, &mut cache, 1);
        let act = b.attend(&q, &spec, &cache, 1, B::wants(&same));
        b.linear(&act, &same, None)
    });
    let mut rows = Vec::new();
    for (step, values) in steps_inputs.iter().zip(outputs) {
        let seqs = step.rows.iter().zip(step.cu_seqlens_q.windows(2));
        let seqs = seqs.flat_map(|(&seq, range)| (range[0]..range[1]).map(move |_| seq as usize));
        let keys = seqs.zip(step.positions.iter().map(|&position| position as usize));
        rows.extend(keys.zip(values.chunks(width).map(<[f32]>::to_vec)));
    }
    rows
}

const MIXED: Steps<'static> =
    &[&[(0, 37), (1, 5)], &[(0, 1), (1, 1)], &[(1, 1), (0, 20), (2, 3)], &[(2, 1), (1, 1), (0, 1)]];

/// Single tokens at the first positions of spans, and in their midst.
const LONG: Steps<'static> = &[&[(0, 256)], &[(0, 1)], &[(0, 255)], &[(0, 1)], &[(0, 6)], &[(0, 1)]];

fn check_agreement(test: &str, case: &Case, steps: Steps<'_>) {
    let Some(mut cuda) = gpu(test) else { return };
    let expected = attended(&mut Reference::new(), case, steps);
    for ((key, actual), (_, expected)) in attended(&mut cuda, case, steps).iter().zip(&expected) {
        check_close(&format!("{case:?} {key:?}"), actual, expected, Tolerance { absolute: 0.03, relative: 0.03 });
    }
}

#[test]
fn long_contexts_agree() {
    for case in [PLAIN, Case { window: Some(300), ..PLAIN }] {
        check_agreement("long_contexts_agree", &case, LONG);
    }
}

#[test]
fn mixed_steps_agree() {
    let cases = [
        PLAIN,
        Case { dim: 32, heads: 3, kv_heads: 1, ..PLAIN },
        Case { dim: 64, heads: 9, kv_heads: 3, ..PLAIN },
        Case { dim: 128, heads: 8, kv_heads: 1, ..PLAIN },
        Case { window: Some(9), ..PLAIN },
        Case { softcap: Some(3.0), ..PLAIN },
        Case { head_norms: true, ..PLAIN },
    ];
    for case in cases {
        check_agreement("mixed_steps_agree", &case, MIXED);
    }
}

#[test]
fn a_token_has_the_same_bits_in_a_chunk_alone_and_split_over_spans() {
    let name = "a_token_has_the_same_bits_in_a_chunk_alone_and_split_over_spans";
    for window in [None, Some(300)] {
        let case = Case { window, ..PLAIN };
        let rows = |steps: Steps<'_>| Some(attended(&mut gpu(name)?, &case, steps));
        let Some(whole) = rows(&[&[(0, 520)]]) else { return };
        let chunks = rows(LONG).expect("as before");
        let company = rows(&[&[(1, 3), (0, 518)], &[(1, 1), (0, 1)], &[(0, 1), (1, 1)]]).expect("as before");
        for rows in [chunks, company] {
            for (key, row) in rows.iter().filter(|(key, _)| key.0 == 0) {
                assert_eq!(row, &whole[key.1].1, "position {} {window:?}", key.1);
            }
        }
    }
}
