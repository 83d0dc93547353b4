//! Rotation, KV writes and attention over several steps: chunks, single tokens, and both in one step.

use tensor::{
    Act, ActSet, AttnSpec, Backend, CacheSpec, GroupInputs, KvDtype, KvScales, NormSpec, QkvSpec, Role, RopeTable,
    StepInputs, StepKey,
};
use testkit::{Random, Tolerance, check_close};

use super::{identity, pack, run_planned, values};
use crate::reference::Reference;

const VOCAB: usize = 97;
const HIDDEN: usize = 32;

/// One layer's attention, and the steps that its sequences take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
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
    /// Dimensions that are rotated, where not all are.
    pub rotary_dim: Option<usize>,
    pub block_size: usize,
    /// Before the last step, the first block of its last sequence, a full one, moves to where no block was.
    pub moved: bool,
}

pub(crate) const PLAIN: Case = Case {
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
    rotary_dim: None,
    block_size: 16,
    moved: false,
};

/// 8 bits, with scales that are no powers of two.
pub(crate) const FP8: Case = Case { dtype: KvDtype::Fp8, kv_scales: KvScales { k: 0.7, v: 0.3 }, ..PLAIN };

/// (sequence, tokens) of each step.
pub(crate) type Steps<'a> = &'a [&'a [(usize, usize)]];

impl Case {
    /// Inputs of each step: every sequence's blocks lie scattered.
    pub fn inputs(&self, steps: Steps<'_>) -> Vec<StepInputs> {
        let block_size = self.block_size;
        let sequences = 1 + steps.iter().flat_map(|step| step.iter()).map(|&(seq, _)| seq).max().unwrap();
        let mut lens = vec![0; sequences];
        let total = |seq: usize| -> usize {
            steps.iter().flat_map(|step| step.iter()).filter(|work| work.0 == seq).map(|work| work.1).sum()
        };
        let stride = (0..sequences).map(|seq| total(seq).div_ceil(block_size)).max().unwrap();
        let block = |seq: usize, idx: usize| (1 + (stride - 1 - idx) * sequences + seq) as u32;
        let step = |step: &&[(usize, usize)]| {
            let mut inputs =
                StepInputs { cu_seqlens_q: vec![0], groups: vec![GroupInputs::default()], ..StepInputs::default() };
            inputs.groups[0].stride = stride;
            for &(seq, len) in step.iter() {
                for position in lens[seq]..lens[seq] + len {
                    inputs.token_ids.push(((seq * 31 + position * 7) % VOCAB) as u32);
                    inputs.positions.push(position as u32);
                    let slot = block(seq, position / block_size) as usize * block_size + position % block_size;
                    inputs.groups[0].slot_mapping.push(slot as u32);
                }
                lens[seq] += len;
                inputs.rows.push(seq as u32);
                inputs.cu_seqlens_q.push(inputs.token_ids.len() as u32);
                inputs.seq_lens.push(lens[seq] as u32);
                let used = lens[seq].div_ceil(block_size);
                inputs.groups[0]
                    .block_tables
                    .extend((0..stride).map(|idx| if idx < used { block(seq, idx) } else { 0 }));
            }
            inputs
        };
        steps.iter().map(step).collect()
    }

    /// The attended row of each (sequence, position), in the order of the steps.
    pub fn attended<B: Backend>(&self, b: &mut B, steps: Steps<'_>) -> Vec<((usize, usize), Vec<f32>)> {
        let mut inputs = self.inputs(steps);
        let last = inputs.last_mut().expect("there is a step");
        let entry = (last.num_seqs() - 1) * last.groups[0].stride;
        let (from, to) = (last.groups[0].block_tables[entry], sizes(std::slice::from_ref(last)).0 as u32);
        if self.moved {
            last.groups[0].block_tables[entry] = to;
        }
        let (blocks, longest) = sizes(&inputs);
        let mut layer = Layer::new(b, self, blocks, longest);
        for inputs in &inputs {
            b.step(StepKey::Plan, inputs, &[], &mut |b| layer.forward(b)).unwrap();
        }
        assert!(b.workspace_bytes() > 0, "a step takes memory");
        let mut rows = Vec::new();
        for (idx, step) in inputs.iter().enumerate() {
            if self.moved && idx + 1 == inputs.len() {
                b.copy_blocks(&mut layer.cache, &[(from, to)]).unwrap();
            }
            let values = run_planned(b, step, &mut |b| layer.forward(b));
            let seqs = step.rows.iter().zip(step.cu_seqlens_q.windows(2));
            let seqs = seqs.flat_map(|(&seq, range)| (range[0]..range[1]).map(move |_| seq as usize));
            let keys = seqs.zip(step.positions.iter().map(|&position| position as usize));
            rows.extend(keys.zip(values.chunks(self.heads * self.dim).map(<[f32]>::to_vec)));
        }
        rows
    }

    /// Holds what `b` makes of the steps against what the reference does; the device's cache may have another element.
    pub fn check<B: Backend>(&self, b: &mut B, steps: Steps<'_>, dtype: KvDtype, tolerance: Tolerance) {
        let expected = self.attended(&mut Reference::new(), steps);
        let actual = Case { dtype, ..*self }.attended(b, steps);
        for ((key, actual), (_, expected)) in actual.iter().zip(&expected) {
            check_close(&format!("{self:?}, {dtype:?}: {key:?}"), actual, expected, tolerance);
        }
    }
}

/// One layer with random weights between an embedding and a matrix that changes nothing.
pub(crate) struct Layer<B: Backend> {
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
        let &Case {
            heads, kv_heads, dim, window, softcap, head_norms, sink, dtype, kv_scales, apart, block_size, ..
        } = case;
        let (before, rotary_dim) = (b.memory(), case.rotary_dim.unwrap_or(dim));
        let mut random = Random::new(11);
        let table = values(&mut random, VOCAB * HIDDEN);
        let qkv = values(&mut random, (heads + 2 * kv_heads) * dim * HIDDEN);
        let gains: Vec<f32> = random.vector(dim).iter().map(|x| 1.0 + 0.1 * x).collect();
        let head_norm =
            |b: &mut B| head_norms.then(|| NormSpec { gain: b.vector(&gains).unwrap(), eps: 1e-5, size: dim });
        let half = rotary_dim / 2;
        let angle = |at: usize| (at / half) as f32 * 0.9f32.powi((at % half) as i32);
        let rope = b.rope_table(&RopeTable {
            cos: (0..longest * half).map(|at| angle(at).cos()).collect(),
            sin: (0..longest * half).map(|at| angle(at).sin()).collect(),
            rotary_dim,
        });
        let sinks = sink.map(|sink| (0..heads).map(|head| sink + head as f32 * 0.5).collect::<Vec<_>>());
        let (num_heads, num_kv_heads, head_dim, scale) = (heads, kv_heads, dim, 1.0 / (dim as f32).sqrt());
        let (q_norm, k_norm) = (head_norm(b), head_norm(b));
        let rope = rope.unwrap();
        let spec = CacheSpec { group: 0, layers: 2, num_kv_heads, head_dim, block_size, blocks, dtype };
        let layer = Self {
            apart,
            table: pack(b, &table, HIDDEN, Role::Embed),
            qkv: pack(b, &qkv.iter().map(|x| x * 0.25).collect::<Vec<_>>(), HIDDEN, Role::Column),
            same: identity(b, heads * dim),
            ones: b.vector(&[1.0; HIDDEN]).unwrap(),
            qkv_spec: QkvSpec { num_heads, num_kv_heads, head_dim, q_norm, k_norm, rope, rotary_dim, kv_scales },
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
        };
        let after = b.memory();
        assert!(after.resident > before.resident && after.dedicated == before.dedicated, "weights are resident");
        layer
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
pub(crate) fn sizes(steps: &[StepInputs]) -> (usize, usize) {
    let blocks =
        steps.iter().flat_map(|step| &step.groups[0].block_tables).max().map_or(1, |&block| block as usize + 1);
    (blocks, steps.iter().flat_map(|step| &step.positions).max().map_or(0, |&last| last as usize + 1))
}

const MIXED: Steps<'static> =
    &[&[(0, 37), (1, 5)], &[(0, 1), (1, 1)], &[(1, 1), (0, 20), (2, 3)], &[(2, 1), (1, 1), (0, 1)]];

/// Single tokens at the first positions of spans, and in their midst.
pub(crate) const LONG: Steps<'static> = &[&[(0, 256)], &[(0, 1)], &[(0, 255)], &[(0, 1)], &[(0, 6)], &[(0, 1)]];

/// The last position sees two spans, and the chunk before it takes little.
const SPANS: Steps<'static> = &[&[(0, 258)], &[(0, 1), (1, 1)]];

/// Cases, and the steps that each takes.
pub(crate) type Rows = Vec<(Case, Steps<'static>)>;

/// The table.
pub(crate) fn rows() -> Rows {
    [long(), wide(), mixed(), masked(), layers()].concat()
}

pub(crate) fn long() -> Rows {
    let cases = [
        PLAIN,
        Case { window: Some(300), ..PLAIN },
        Case { sink: Some(0.5), heads: 2, ..PLAIN },
        Case { window: Some(300), ..FP8 },
    ];
    cases.map(|case| (case, LONG)).into()
}

/// Heads of every width.
pub(crate) fn wide() -> Rows {
    let narrow = Case { heads: 2, kv_heads: 1, window: Some(20), ..PLAIN };
    let wide = [16, 32, 48, 64, 80, 96, 128, 256].map(|dim| Case { dim, ..narrow });
    let coded = wide.map(|case| Case { dtype: FP8.dtype, kv_scales: FP8.kv_scales, ..case });
    [wide, coded].concat().into_iter().map(|case| (case, SPANS)).collect()
}

/// Heads, and how many share a key.
pub(crate) fn mixed() -> Rows {
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
    cases.map(|case| (case, MIXED)).into()
}

/// Windows, caps and sinks, together and alone.
pub(crate) fn masked() -> Rows {
    let scores = [(None, Some(-1.0)), (Some(3.0), None), (Some(3.0), Some(2.0)), (None, Some(60.0))];
    let windowed = [PLAIN, FP8].into_iter().flat_map(|case| [None, Some(9)].map(|window| Case { window, ..case }));
    windowed.flat_map(|case| scores.map(|(softcap, sink)| (Case { softcap, sink, ..case }, MIXED))).collect()
}

/// Blocks of other sizes and blocks that move, and what a layer does before attention.
pub(crate) fn layers() -> Rows {
    let cases = [
        Case { heads: 14, block_size: 32, ..PLAIN },
        Case { heads: 16, kv_heads: 1, block_size: 64, ..PLAIN },
        Case { head_norms: true, apart: true, ..PLAIN },
        Case { dim: 64, rotary_dim: Some(24), head_norms: true, ..PLAIN },
        Case { moved: true, ..PLAIN },
        Case { moved: true, block_size: 32, ..FP8 },
    ];
    cases.map(|case| (case, MIXED)).into()
}
