//! How many kernels a dense layer takes when it decodes, and that nobody waits between them. The emulator counts for its whole process,
//! so this test has one of its own.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use kernels::cuda::{Buf, Cache, Cuda, Weight};
use quant::{Format, Stored, quantize};
use tensor::{
    Activation, AttnSpec, Backend, CacheSpec, GroupInputs, KvDtype, KvScales, NormSpec, QkvSpec, Role, RopeTable,
    StepInputs, StepKey,
};
use testkit::Random;

/// Launches of a layer: norm, qkv, attention, out, norm, gate and up, down. Of FP8 two more, which make codes of what no block sees whole rows
/// of: after attention, and after the gated unit.
const LAUNCHES: [(Format, u64); 2] = [(Format::F32, 7), (Format::Fp8E4m3, 9)];

/// Llama 3.1's structure at a 32nd of its size: four query heads share a key head.
const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const DIM: usize = 16;
const HIDDEN: usize = HEADS * DIM;
const INTERMEDIATE: usize = 448;
const VOCAB: usize = 64;
const BLOCK_SIZE: usize = 16;

// SAFETY: as the C library declares them.
unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

type Count = extern "C" fn(*mut u64, *mut u64) -> c_int;

/// Kernels that have run, and times that the host waited for work; `None` on a card, whose driver does not tell.
fn counts() -> Option<[u64; 2]> {
    const NOW: c_int = 2;
    // SAFETY: the driver's library is loaded already, and looking up a name changes nothing.
    let found = unsafe { dlsym(dlopen(c"libcuda.so.1".as_ptr(), NOW), c"tokenmill_emu_counts".as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the emulator declares it so.
    let count = unsafe { std::mem::transmute::<*mut c_void, Count>(found) };
    let (mut launches, mut waits) = (0, 0);
    assert_eq!(count(&raw mut launches, &raw mut waits), 0, "the emulator answers");
    Some([launches, waits])
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
    fn new(cuda: &mut Cuda, format: Format, longest: usize) -> Self {
        let mut random = Random::new(3);
        let mut matrix = |cuda: &mut Cuda, rows: usize, cols: usize, role: Role| {
            let values: Vec<f32> = random.vector(rows * cols).iter().map(|x| x * 0.1).collect();
            let format = if role == Role::Embed { Format::F32 } else { format };
            let bytes = quantize(format, &values).unwrap();
            let part = Stored::new(rows, cols, format, &bytes).unwrap();
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
            table: matrix(cuda, VOCAB, HIDDEN, Role::Embed),
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

/// Launches and waits of one step of `layers`.
fn cost(cuda: &mut Cuda, decoder: &mut Decoder, inputs: &StepInputs, layers: usize) -> Option<[u64; 2]> {
    let before = counts()?;
    let out = cuda.step(StepKey::Eager, inputs, &mut |b| decoder.forward(b, layers)).unwrap();
    cuda.read(&out, &mut Vec::new()).unwrap();
    let after = counts()?;
    Some([after[0] - before[0], after[1] - before[1]])
}

#[test]
fn a_layer_decodes_in_few_launches_that_nobody_waits_between() {
    let name = "a_layer_decodes_in_few_launches_that_nobody_waits_between";
    for (format, launches) in LAUNCHES {
        let mut cuda = match Cuda::new(0) {
            Ok(cuda) => cuda,
            Err(error) => return testkit::skip(name, &error.to_string()),
        };
        let mut decoder = Decoder::new(&mut cuda, format, 1024);
        // One span, and several, each with a block of its own.
        let steps = [(1, 30), (3, 900)].map(|(sequences, position)| step(sequences, position));
        for inputs in &steps {
            cuda.step(StepKey::Plan, inputs, &mut |b| decoder.forward(b, 4)).unwrap();
        }
        for inputs in &steps {
            cost(&mut cuda, &mut decoder, inputs, 1);
            let costs = [1, 4].map(|layers| cost(&mut cuda, &mut decoder, inputs, layers));
            let [Some(one), Some(four)] = costs else { return testkit::skip(name, "this driver counts no launches") };
            let what =
                format!("{format}, {} sequences at {}: {one:?}, {four:?}", inputs.num_seqs(), inputs.positions[0]);
            assert_eq!(four[0] - one[0], 3 * launches, "launches of three layers; {what}");
            assert_eq!(four[1], one[1], "waits; {what}");
        }
    }
}
