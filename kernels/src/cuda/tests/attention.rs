//! Rotation, KV writes and attention over several steps, their inputs brought by `upload`: chunks, single tokens, and both in one step.

use super::*;

const BLOCK_SIZE: usize = 16;
const VOCAB: usize = 97;
const HIDDEN: usize = 32;

/// One layer's attention, and the steps that its sequences take.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub window: Option<usize>,
    pub softcap: Option<f32>,
    pub head_norms: bool,
    /// Of the first head; each of the others' is half a unit larger.
    pub sink: Option<f32>,
    pub dtype: KvDtype,
    pub kv_scales: KvScales,
    /// Rotation and attention as two ops.
    pub apart: bool,
}

pub(super) const PLAIN: Case = Case {
    heads: 4,
    kv_heads: 2,
    dim: 16,
    window: None,
    softcap: None,
    head_norms: false,
    sink: None,
    dtype: KvDtype::Auto,
    kv_scales: KvScales { k: 1.0, v: 1.0 },
    apart: false,
};

/// 8 bits, with scales that are no powers of two.
const FP8: Case = Case { dtype: KvDtype::Fp8, kv_scales: KvScales { k: 0.7, v: 0.3 }, ..PLAIN };

/// (sequence, tokens) of each step.
pub(super) type Steps<'a> = &'a [&'a [(usize, usize)]];

/// Inputs of each step: every sequence's blocks lie scattered.
pub(super) fn inputs(steps: Steps<'_>) -> Vec<StepInputs> {
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

/// One layer with random weights between an embedding and a matrix that changes nothing.
pub(super) struct Layer<B: Backend> {
    apart: bool,
    table: B::Weight,
    qkv: B::Weight,
    same: B::Weight,
    ones: B::Buf,
    qkv_spec: QkvSpec<B>,
    attn_spec: AttnSpec<B>,
    pub cache: B::Cache,
}

impl<B: Backend> Layer<B> {
    pub fn new(b: &mut B, case: &Case, blocks: usize, longest: usize) -> Self {
        let &Case { heads, kv_heads, dim, window, softcap, head_norms, sink, dtype, kv_scales, apart } = case;
        let mut random = Random::new(11);
        let table = values(&mut random, VOCAB * HIDDEN);
        let qkv = values(&mut random, (heads + 2 * kv_heads) * dim * HIDDEN);
        let gains: Vec<f32> = random.vector(dim).iter().map(|x| 1.0 + 0.1 * x).collect();
        let head_norm =
            |b: &mut B| head_norms.then(|| NormSpec { gain: b.vector(&gains).unwrap(), eps: 1e-5, size: dim });
        let angle = |at: usize| (at / (dim / 2)) as f32 * 0.9f32.powi((at % (dim / 2)) as i32);
        let rope = b.rope_table(&RopeTable {
            cos: (0..longest * dim / 2).map(|at| angle(at).cos()).collect(),
            sin: (0..longest * dim / 2).map(|at| angle(at).sin()).collect(),
            rotary_dim: dim,
        });
        let sinks = sink.map(|sink| (0..heads).map(|head| sink + head as f32 * 0.5).collect::<Vec<_>>());
        let (num_heads, num_kv_heads, head_dim, scale) = (heads, kv_heads, dim, 1.0 / (dim as f32).sqrt());
        let (q_norm, k_norm) = (head_norm(b), head_norm(b));
        let rope = rope.unwrap();
        let spec = CacheSpec { group: 0, layers: 2, num_kv_heads, head_dim, block_size: BLOCK_SIZE, blocks, dtype };
        Self {
            apart,
            table: pack(b, &table, HIDDEN, Role::Embed),
            qkv: pack(b, &qkv.iter().map(|x| x * 0.25).collect::<Vec<_>>(), HIDDEN, Role::Column),
            same: identity(b, heads * dim),
            ones: b.vector(&[1.0; HIDDEN]).unwrap(),
            qkv_spec: QkvSpec { num_heads, num_kv_heads, head_dim, q_norm, k_norm, rope, rotary_dim: dim, kv_scales },
            attn_spec: AttnSpec {
                num_heads,
                num_kv_heads,
                head_dim,
                scale,
                window,
                softcap,
                sinks: sinks.map(|sinks| b.vector(&sinks).unwrap()),
                kv_scales,
            },
            cache: b.new_cache(&spec).unwrap(),
        }
    }

    /// The attended rows of the step's tokens.
    pub fn forward(&mut self, b: &mut B) -> B::Buf {
        let act = self.attend(b, B::wants(&self.same));
        b.linear(&act, &self.same, None)
    }

    pub fn attend(&mut self, b: &mut B, emit: ActSet) -> Act<B> {
        let x = b.embed(&self.table, 1.0);
        let norm = NormSpec { gain: self.ones.clone(), eps: 1e-5, size: HIDDEN };
        let act = b.norm(&x, &norm, B::wants(&self.qkv));
        let rows = b.linear(&act, &self.qkv, None);
        match self.apart {
            true => {
                let q = b.rope_write(&rows, &self.qkv_spec, &mut self.cache, 1);
                b.attend(&q, &self.attn_spec, &self.cache, 1, emit)
            }
            false => b.rope_attend(&rows, &self.qkv_spec, &self.attn_spec, &mut self.cache, 1, emit),
        }
    }
}

/// Blocks that the caches of these steps need, and the longest context.
pub(super) fn sizes(steps: &[StepInputs]) -> (usize, usize) {
    let blocks =
        steps.iter().flat_map(|step| &step.groups[0].block_tables).max().map_or(1, |&block| block as usize + 1);
    (blocks, steps.iter().flat_map(|step| &step.positions).max().map_or(0, |&last| last as usize + 1))
}

/// The attended row of each (sequence, position), in the order of the steps.
fn attended<B: Backend>(b: &mut B, case: &Case, steps: Steps<'_>) -> Vec<((usize, usize), Vec<f32>)> {
    let inputs = inputs(steps);
    let (blocks, longest) = sizes(&inputs);
    let mut layer = Layer::new(b, case, blocks, longest);
    let outputs = run(b, &inputs, &mut |b| layer.forward(b));
    let mut rows = Vec::new();
    for (step, values) in inputs.iter().zip(outputs) {
        let seqs = step.rows.iter().zip(step.cu_seqlens_q.windows(2));
        let seqs = seqs.flat_map(|(&seq, range)| (range[0]..range[1]).map(move |_| seq as usize));
        let keys = seqs.zip(step.positions.iter().map(|&position| position as usize));
        rows.extend(keys.zip(values.chunks(case.heads * case.dim).map(<[f32]>::to_vec)));
    }
    rows
}

const MIXED: Steps<'static> =
    &[&[(0, 37), (1, 5)], &[(0, 1), (1, 1)], &[(1, 1), (0, 20), (2, 3)], &[(2, 1), (1, 1), (0, 1)]];

/// Single tokens at the first positions of spans, and in their midst.
const LONG: Steps<'static> = &[&[(0, 256)], &[(0, 1)], &[(0, 255)], &[(0, 1)], &[(0, 6)], &[(0, 1)]];

/// Of 8 bits, a value that two backends see on either side of a rounding's border differs by up to an eighth of itself, and a score by
/// as much as its key.
fn tolerance(case: &Case) -> Tolerance {
    match case.dtype {
        KvDtype::Fp8 => Tolerance { absolute: 0.1, relative: 0.13 },
        _ => Tolerance { absolute: 0.03, relative: 0.03 },
    }
}

fn check_agreement(test: &str, case: &Case, steps: Steps<'_>) {
    let Some(mut cuda) = gpu(test) else { return };
    let expected = attended(&mut Reference::new(), case, steps);
    for ((key, actual), (_, expected)) in attended(&mut cuda, case, steps).iter().zip(&expected) {
        check_close(&format!("{case:?} {key:?}"), actual, expected, tolerance(case));
    }
}

#[test]
fn long_contexts_agree() {
    for case in [
        PLAIN,
        Case { window: Some(300), ..PLAIN },
        Case { sink: Some(0.5), heads: 2, ..PLAIN },
        Case { window: Some(300), ..FP8 },
    ] {
        check_agreement("long_contexts_agree", &case, LONG);
    }
}

#[test]
fn spans_of_every_width_agree() {
    let steps: Steps<'_> = &[&[(0, 258)], &[(0, 1), (1, 1)]];
    // The last position sees two spans, and the chunk before it takes little.
    let narrow = Case { heads: 2, kv_heads: 1, window: Some(20), ..PLAIN };
    let wide = [16, 32, 64, 80, 96, 128, 256].map(|dim| Case { dim, ..narrow.clone() });
    let coded = wide.clone().map(|case| Case { dtype: FP8.dtype, kv_scales: FP8.kv_scales, ..case });
    for case in wide.iter().chain(&coded) {
        check_agreement("spans_of_every_width_agree", case, steps);
    }
}

#[test]
fn mixed_steps_agree() {
    let cases = [
        PLAIN,
        Case { heads: 2, ..PLAIN },
        Case { dim: 32, heads: 3, kv_heads: 1, ..PLAIN },
        Case { dim: 64, heads: 9, kv_heads: 3, ..PLAIN },
        Case { dim: 80, ..PLAIN },
        Case { dim: 96, ..PLAIN },
        Case { dim: 128, heads: 8, kv_heads: 1, ..PLAIN },
        Case { dim: 256, ..PLAIN },
        Case { head_norms: true, ..PLAIN },
        FP8,
        Case { dim: 64, heads: 9, kv_heads: 3, head_norms: true, ..FP8 },
        Case { dim: 80, ..FP8 },
        Case { dim: 128, heads: 8, kv_heads: 1, ..FP8 },
    ];
    for case in cases {
        check_agreement("mixed_steps_agree", &case, MIXED);
    }
}

#[test]
fn windows_caps_and_sinks_go_together() {
    for dtype in [KvDtype::Auto, KvDtype::Fp8] {
        for window in [None, Some(9)] {
            for (softcap, sink) in [(None, Some(-1.0)), (Some(3.0), None), (Some(3.0), Some(2.0)), (None, Some(60.0))] {
                let case = Case { window, softcap, sink, dtype, ..PLAIN };
                check_agreement("windows_caps_and_sinks_go_together", &case, MIXED);
            }
        }
    }
}

#[test]
fn a_token_has_the_same_bits_in_a_chunk_alone_and_split_over_spans() {
    let name = "a_token_has_the_same_bits_in_a_chunk_alone_and_split_over_spans";
    for case in [PLAIN, Case { window: Some(300), sink: Some(0.5), ..PLAIN }, FP8] {
        let rows = |steps: Steps<'_>| Some(attended(&mut gpu(name)?, &case, steps));
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
        let rows = |apart: bool| Some(attended(&mut gpu(name)?, &Case { apart, ..case.clone() }, &steps));
        let (Some(one), Some(two)) = (rows(false), rows(true)) else { return };
        assert_eq!(one, two, "{case:?}");
    }
}

/// Sequences that only fill up a step have slots that say so: they write nothing, see nothing, and change no neighbour.
#[test]
fn padding_attends_to_nothing() {
    let name = "padding_attends_to_nothing";
    for first in [30, 300] {
        let mut steps = inputs(&[&[(0, first), (1, 7)], &[(0, 1), (1, 1)]]);
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
