//! What a step costs the host: how many kernels a dense layer takes when it decodes, that nobody waits between them, and that a step
//! which is replayed uploads and waits once and allocates nothing on the device (`tests/allocations.rs` at the top holds the last of the
//! host).
//! The emulator counts for its whole process, so these tests have one of their own, and take turns.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contract::SamplingParams;
use kernels::cuda::{Buf, Cache, Cuda, Weight};
use quant::{Format, OwnedScales, Stored, quantize};
use sampler::{Row, Sampled};
use tensor::{
    Activation, AttnSpec, Backend, CacheSpec, GroupInputs, KvDtype, KvScales, NormSpec, QkvSpec, Role, RopeTable,
    StepInputs, StepKey,
};
use testkit::Random;

/// Launches of a layer, however its weights are held: norm, qkv, attention, out, norm, gate and up, down.
const OF_LAYER: u64 = 7;

/// Weights, and the size of the blocks that have scales of their own.
const HELD: [(Format, Option<usize>); 3] = [(Format::F32, None), (Format::Fp8E4m3, None), (Format::Fp8E4m3, Some(128))];

/// Of a step beside its layers: embedding, rows wanted, norm, head; edits, scan, draws, log probabilities.
const BESIDE: u64 = 8;

/// The structure of Llama 3.1, much smaller: four query heads share a key head.
const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const DIM: usize = 32;
const HIDDEN: usize = HEADS * DIM;
const INTERMEDIATE: usize = 448;
const VOCAB: usize = 64;
const BLOCK_SIZE: usize = 16;

// SAFETY: as the C library declares them.
unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// As `emu/driver/counts.h` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    launches: u64,
    replays: u64,
    waits: u64,
    uploads: u64,
    downloads: u64,
    allocations: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            launches: self.launches - before.launches,
            replays: self.replays - before.replays,
            waits: self.waits - before.waits,
            uploads: self.uploads - before.uploads,
            downloads: self.downloads - before.downloads,
            allocations: self.allocations - before.allocations,
        }
    }
}

type Count = extern "C" fn(*mut Counts) -> c_int;

/// What has happened so far; `None` on a card, whose driver does not tell.
fn counts() -> Option<Counts> {
    const NOW: c_int = 2;
    // SAFETY: the driver's library is loaded already, and looking up a name changes nothing.
    let found = unsafe { dlsym(dlopen(c"libcuda.so.1".as_ptr(), NOW), c"tokenmill_emu_counts".as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the emulator declares it so.
    let count = unsafe { std::mem::transmute::<*mut c_void, Count>(found) };
    let mut counts = Counts::default();
    assert_eq!(count(&raw mut counts), 0, "the emulator answers");
    Some(counts)
}

/// Held by the test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One layer, as `nn` calls a backend for it, run over and over.
struct Decoder {
    norm: NormSpec<Cuda>,
    qkv_spec: QkvSpec<Cuda>,
    attn_spec: AttnSpec<Cuda>,
    table: Weight,
    qkv: Weight,
    out: Weight,
    glu: Weight,
    down: Weight,
    cache: Cache,
}

impl Decoder {
    fn new(cuda: &mut Cuda, (format, block): (Format, Option<usize>), longest: usize) -> Self {
        let mut random = Random::new(3);
        let mut matrix = |cuda: &mut Cuda, rows: usize, cols: usize, role: Role| {
            let values: Vec<f32> = random.vector(rows * cols).iter().map(|x| x * 0.1).collect();
            let format = if role == Role::Head { Format::F32 } else { format };
            let bytes = quantize(format, &values).unwrap();
            let part = Stored::new(rows, cols, format, &bytes).unwrap();
            let scales = block
                .filter(|_| role != Role::Head)
                .map(|size| OwnedScales::new(size, size, vec![1.0; rows.div_ceil(size) * cols.div_ceil(size)]));
            let part = match &scales {
                Some(scales) => part.with_scales(scales.borrow()).unwrap(),
                None => part,
            };
            let parts = if role == Role::Glu { vec![part; 2] } else { vec![part] };
            cuda.pack(&parts, role).unwrap()
        };
        let (num_heads, num_kv_heads, head_dim, rotary_dim) = (HEADS, KV_HEADS, DIM, DIM);
        let angles = vec![0.5; longest * DIM / 2];
        let rope = cuda.rope_table(&RopeTable { cos: angles.clone(), sin: angles, rotary_dim }).unwrap();
        let (q_norm, k_norm, kv_scales) = (None, None, KvScales::default());
        let cache = CacheSpec {
            group: 0,
            layers: 1,
            num_kv_heads,
            head_dim,
            block_size: BLOCK_SIZE,
            blocks: 3 * longest / BLOCK_SIZE,
            dtype: KvDtype::Auto,
        };
        Self {
            norm: NormSpec { gain: cuda.vector(&[1.0; HIDDEN]).unwrap(), eps: 1e-5, size: HIDDEN },
            qkv_spec: QkvSpec { num_heads, num_kv_heads, head_dim, q_norm, k_norm, rope, rotary_dim, kv_scales },
            attn_spec: AttnSpec {
                num_heads,
                num_kv_heads,
                head_dim,
                scale: 0.25,
                window: None,
                softcap: None,
                sinks: None,
                kv_scales,
            },
            table: matrix(cuda, VOCAB, HIDDEN, Role::Head),
            qkv: matrix(cuda, (HEADS + 2 * KV_HEADS) * DIM, HIDDEN, Role::Column),
            out: matrix(cuda, HIDDEN, HIDDEN, Role::Row),
            glu: matrix(cuda, INTERMEDIATE, HIDDEN, Role::Glu),
            down: matrix(cuda, HIDDEN, INTERMEDIATE, Role::Row),
            cache: cuda.new_cache(&cache).unwrap(),
        }
    }

    fn forward(&mut self, b: &mut Cuda, layers: usize) -> Buf {
        let x = b.embed(&self.table, 1.0);
        for _ in 0..layers {
            let act = b.norm(&x, &self.norm, Cuda::wants(&self.qkv));
            let qkv = b.linear(&act, &self.qkv, None);
            let wanted = Cuda::wants(&self.out);
            let act = b.rope_attend(&qkv, &self.qkv_spec, &self.attn_spec, &mut self.cache, 0, wanted);
            b.linear_add(&act, &self.out, None, &x);
            let act = b.norm(&x, &self.norm, Cuda::wants(&self.glu));
            let act = b.linear_glu(&act, &self.glu, Activation::Silu, Cuda::wants(&self.down));
            b.linear_add(&act, &self.down, None, &x);
        }
        x
    }

    /// The forward of one layer, and the logits of every token.
    fn logits(&mut self, b: &mut Cuda) -> Buf {
        let x = self.forward(b, 1);
        let x = b.gather(&x);
        let act = b.norm(&x, &self.norm, Cuda::wants(&self.table));
        b.linear(&act, &self.table, None)
    }
}

/// One token each of some sequences at `position`.
fn step(sequences: usize, position: usize) -> StepInputs {
    let stride = position / BLOCK_SIZE + 1;
    let group = GroupInputs {
        slot_mapping: (0..sequences).map(|seq| (seq * stride * BLOCK_SIZE + position) as u32).collect(),
        block_tables: (0..(sequences * stride) as u32).collect(),
        stride,
    };
    StepInputs {
        token_ids: vec![1; sequences],
        positions: vec![position as u32; sequences],
        rows: (0..sequences as u32).collect(),
        cu_seqlens_q: (0..=sequences as u32).collect(),
        seq_lens: vec![position as u32 + 1; sequences],
        logit_tokens: Vec::new(),
        groups: vec![group],
    }
}

/// What one step of `layers` costs.
fn cost(cuda: &mut Cuda, decoder: &mut Decoder, inputs: &StepInputs, layers: usize) -> Option<Counts> {
    let before = counts()?;
    let out = cuda.step(StepKey::Eager, inputs, &[], &mut |b| decoder.forward(b, layers)).unwrap();
    cuda.read(&out, &mut Vec::new()).unwrap();
    Some(counts()?.since(before))
}

#[test]
fn a_layer_decodes_in_few_launches_that_nobody_waits_between() {
    let name = "a_layer_decodes_in_few_launches_that_nobody_waits_between";
    let _turn = alone();
    for held in HELD {
        let mut cuda = match Cuda::new(0) {
            Ok(cuda) => cuda,
            Err(error) => return testkit::skip(name, &error.to_string()),
        };
        let mut decoder = Decoder::new(&mut cuda, held, 1024);
        // One span, and several, each with a block of its own.
        let steps = [(1, 30), (3, 900)].map(|(sequences, position)| step(sequences, position));
        for inputs in &steps {
            cuda.step(StepKey::Plan, inputs, &[], &mut |b| decoder.forward(b, 4)).unwrap();
        }
        for inputs in &steps {
            cost(&mut cuda, &mut decoder, inputs, 1);
            let costs = [1, 4].map(|layers| cost(&mut cuda, &mut decoder, inputs, layers));
            let [Some(one), Some(four)] = costs else { return testkit::skip(name, "this driver counts no launches") };
            let what =
                format!("{held:?}, {} sequences at {}: {one:?}, {four:?}", inputs.num_seqs(), inputs.positions[0]);
            assert_eq!(four.launches - one.launches, 3 * OF_LAYER, "launches of three layers; {what}");
            assert_eq!(four.waits, one.waits, "waits; {what}");
        }
    }
}

/// One greedy row, and the others drawn, with log probabilities and a token that is out.
fn sampling(rows: usize) -> Vec<SamplingParams> {
    let drawn = SamplingParams { top_p: 0.9, bad_words: vec![vec![3]], logprobs: Some(2), ..SamplingParams::default() };
    let mut params = vec![drawn; rows];
    params[0] = SamplingParams::greedy();
    params
}

/// A step as the runner makes it, of as many tokens as `wants`: the forward, and a token each. The last has a grammar's mask where
/// there is one, which comes with the sampling.
fn sample(
    cuda: &mut Cuda,
    decoder: &mut Decoder,
    inputs: &StepInputs,
    wants: &[SamplingParams],
    mask: Option<&[u32]>,
) -> Sampled {
    let key = StepKey::Decode { bucket: inputs.num_seqs() as u32 };
    let (position, prompt_len, tokens) = (inputs.positions[0], 1, &[1, 1][..]);
    let row = |(logits, params)| Row { position, tokens, prompt_len, ..Row::alone(logits, params) };
    let (mut rows, mut sampled): (Vec<_>, _) = (wants.iter().enumerate().map(row).collect(), Sampled::default());
    rows[wants.len() - 1].mask = mask.and(Some(&[]));
    let logits = cuda.step(key, inputs, &rows, &mut |b| decoder.logits(b)).unwrap();
    rows[wants.len() - 1].mask = mask;
    cuda.sample(&logits, &mut rows, &mut sampled).unwrap();
    sampled
}

#[test]
fn a_step_that_is_replayed_uploads_and_waits_once_and_allocates_nothing() {
    let name = "a_step_that_is_replayed_uploads_and_waits_once_and_allocates_nothing";
    let _turn = alone();
    let mut cuda = match Cuda::new(0) {
        Ok(cuda) => cuda,
        Err(error) => return testkit::skip(name, &error.to_string()),
    };
    let mut decoder = Decoder::new(&mut cuda, HELD[1], 256);
    let wants = sampling(3);
    let step = |position| {
        let mut inputs = step(3, position);
        inputs.logit_tokens = vec![0, 1, 2];
        inputs.pad(4);
        inputs
    };
    cuda.step(StepKey::Plan, &step(250), &[], &mut |b| decoder.logits(b)).unwrap();
    // Launched, recorded, and replayed.
    for position in 30..33 {
        sample(&mut cuda, &mut decoder, &step(position), &wants, None);
    }
    // A mask comes in a copy of its own.
    for (position, mask, uploads) in [(33, None, 1), (34, Some(&[1, 0][..]), 2), (35, None, 1)] {
        let before = counts();
        let sampled = sample(&mut cuda, &mut decoder, &step(position), &wants, mask);
        let (Some(before), Some(after)) = (before, counts()) else {
            return testkit::skip(name, "this driver counts no launches");
        };
        let launches = OF_LAYER + BESIDE;
        let expected = Counts { launches, replays: 2, waits: 1, uploads, downloads: 1, allocations: 0 };
        assert_eq!(after.since(before), expected, "position {position}");
        assert_eq!(sampled.rows.len(), 3);
    }
}
