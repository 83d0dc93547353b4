//! Recorded steps: the bits of steps that are launched kernel by kernel, whatever fills them up.

use super::*;

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const HIDDEN: usize = 64;
const BLOCK: usize = 16;
const VOCAB: usize = 48;
const MAX_SEQS: usize = 16;
/// Blocks of a sequence at most.
const BLOCKS: usize = 40;

/// One layer without its feed-forward, and a head.
struct Layer {
    cuda: Cuda,
    table: Weight,
    qkv: Weight,
    out: Weight,
    gain: Buf,
    spec: QkvSpec<Cuda>,
    cache: Cache,
}

impl Layer {
    fn new(mut cuda: Cuda) -> Self {
        let mut random = Random::new(41);
        let mut weight = |cuda: &mut Cuda, rows: usize, cols: usize, role| {
            let values: Vec<f32> = values(&mut random, rows * cols).into_iter().map(|x| x * 0.2).collect();
            pack(cuda, &values, cols, role)
        };
        let angles = |f: fn(f32) -> f32| (0..BLOCKS * BLOCK * HEAD_DIM / 2).map(|at| f(at as f32 * 0.01)).collect();
        let rope = RopeTable { cos: angles(f32::cos), sin: angles(f32::sin), rotary_dim: HEAD_DIM };
        let spec = QkvSpec {
            num_heads: HEADS,
            num_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            q_norm: None,
            k_norm: None,
            rope: cuda.rope_table(&rope).unwrap(),
            rotary_dim: HEAD_DIM,
            kv_scales: KvScales::default(),
        };
        let cache = CacheSpec {
            group: 0,
            layers: 1,
            num_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            block_size: BLOCK,
            blocks: MAX_SEQS * BLOCKS + 1,
            dtype: KvDtype::Bf16,
        };
        let mut layer = Self {
            table: weight(&mut cuda, VOCAB, HIDDEN, Role::Head),
            qkv: weight(&mut cuda, (HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN, Role::Column),
            out: fp8(&mut cuda, HIDDEN, HEADS * HEAD_DIM),
            gain: cuda.vector(&[1.0; HIDDEN]).unwrap(),
            cache: cuda.new_cache(&cache).unwrap(),
            spec,
            cuda,
        };
        // Steps here read positions that no step has written.
        let bytes = MAX_SEQS * BLOCKS * cache::block_bytes(&cache);
        layer.cuda.device.zero(layer.cache.block(0, 0), bytes).unwrap();
        layer.step(StepKey::Plan, &decode(&[(0, BLOCKS * BLOCK - 1); MAX_SEQS]));
        layer
    }

    /// Logits of every row of the step.
    fn step(&mut self, key: StepKey, inputs: &StepInputs) -> Vec<f32> {
        let Self { cuda, table, qkv, out, gain, spec, cache } = self;
        let mut body = |b: &mut Cuda| {
            let norm = NormSpec { gain: gain.clone(), eps: 1e-5, size: HIDDEN };
            let bf16 = ActSet::of(Encoding::Bf16);
            let x = b.embed(table, 1.0);
            let normed = b.norm(&x, &norm, bf16);
            let fused = b.linear(&normed, qkv, None);
            let attn = AttnSpec {
                num_heads: HEADS,
                num_kv_heads: KV_HEADS,
                head_dim: HEAD_DIM,
                scale: 0.2,
                window: None,
                softcap: None,
                sinks: None,
                kv_scales: KvScales::default(),
            };
            let attended = b.rope_attend(&fused, spec, &attn, cache, 0, Cuda::wants(out));
            b.linear_add(&attended, out, None, &x);
            let wanted = b.gather(&x);
            let normed = b.norm(&wanted, &norm, bf16);
            b.linear(&normed, table, None)
        };
        let logits = cuda.step(key, inputs, &[], &mut body).unwrap();
        let mut values = Vec::new();
        if key != StepKey::Plan {
            cuda.read(&logits, &mut values).unwrap();
        }
        values
    }

    fn recorded(&self) -> usize {
        self.cuda.graphs.num_recorded()
    }
}

/// A weight for which attention keeps its rows' peaks.
fn fp8(cuda: &mut Cuda, rows: usize, cols: usize) -> Weight {
    let codes = quant::fp8_e4m3::encode(&Random::new(42).vector(rows * cols));
    cuda.pack(&[Stored::new(rows, cols, Format::Fp8E4m3, &codes).unwrap()], Role::Row).unwrap()
}

/// One token of each `(sequence, position)`, in blocks of its own.
fn decode(rows: &[(usize, usize)]) -> StepInputs {
    let stride = rows.iter().map(|row| row.1 / BLOCK + 1).max().unwrap_or(0);
    let block = |seq: usize, idx: usize| (1 + seq * BLOCKS + idx) as u32;
    let tables = rows.iter().flat_map(|row| {
        let used = row.1 / BLOCK + 1;
        (0..stride).map(move |idx| if idx < used { block(row.0, idx) } else { 0 })
    });
    let group = GroupInputs {
        slot_mapping: rows
            .iter()
            .map(|row| block(row.0, row.1 / BLOCK) * BLOCK as u32 + (row.1 % BLOCK) as u32)
            .collect(),
        block_tables: tables.collect(),
        stride,
    };
    let count = rows.len() as u32;
    StepInputs {
        token_ids: rows.iter().map(|row| ((row.0 * 31 + row.1 * 7) % VOCAB) as u32).collect(),
        positions: rows.iter().map(|row| row.1 as u32).collect(),
        rows: (0..count).collect(),
        cu_seqlens_q: (0..=count).collect(),
        seq_lens: rows.iter().map(|row| row.1 as u32 + 1).collect(),
        logit_tokens: (0..count).collect(),
        groups: vec![group],
    }
}

/// The same filled up, as a runner does.
fn padded(inputs: &StepInputs) -> (StepKey, StepInputs) {
    let bucket = bucket(inputs.num_seqs());
    let mut padded = inputs.clone();
    padded.pad(bucket as usize);
    (StepKey::Decode { bucket }, padded)
}

#[test]
fn a_recorded_step_has_the_bits_of_one_that_was_launched() {
    let test = "a_recorded_step_has_the_bits_of_one_that_was_launched";
    let (Some(eager), Some(recording)) = (gpu(test), gpu(test)) else { return };
    let (mut eager, mut recording) = (Layer::new(eager.eager()), Layer::new(recording));
    assert!(eager.cuda.decode_bucket(3).is_none() && recording.cuda.decode_bucket(3) == Some(4));
    // From one sequence to ten, over the end of a block, and a context over the end of a span.
    for position in [0, 1, 2, 15, 16, 250, 254, 255, 256, 257] {
        for num_seqs in [1, 3, 4, 10] {
            let rows: Vec<(usize, usize)> = (0..num_seqs).map(|seq| (seq, position + seq % 2)).collect();
            let inputs = decode(&rows);
            let expected = eager.step(StepKey::Eager, &inputs);
            let (key, inputs) = padded(&inputs);
            let found = recording.step(key, &inputs);
            assert_eq!(found[..expected.len()], expected, "{num_seqs} sequences at {position}");
            assert!(found.iter().all(|x| x.is_finite()), "what fills up is finite");
        }
    }
    // Buckets 1, 4 and 16, each at contexts up to 256 and up to 512.
    assert_eq!((eager.recorded(), recording.recorded()), (0, 6));
}

#[test]
fn a_replay_looks_at_the_inputs_again() {
    let Some(cuda) = gpu("a_replay_looks_at_the_inputs_again") else { return };
    let mut layer = Layer::new(cuda);
    let (key, good) = padded(&decode(&[(0, 3), (1, 4)]));
    let expected: Vec<Vec<f32>> = (0..3).map(|_| layer.step(key, &good)).collect();
    assert_eq!(layer.recorded(), 1);
    type Spoil = fn(&mut StepInputs);
    let spoil: [(&str, Spoil); 4] = [
        ("vocabulary", |inputs| inputs.token_ids[1] = VOCAB as u32),
        ("slot", |inputs| inputs.groups[0].slot_mapping[0] = u32::MAX - 1),
        ("block", |inputs| inputs.groups[0].block_tables[1] = 9999),
        ("position", |inputs| inputs.positions[0] = 255),
    ];
    for (why, spoil) in spoil {
        let mut inputs = good.clone();
        spoil(&mut inputs);
        let refused = layer.cuda.step(key, &inputs, &[], &mut |_| panic!("a recorded step is not run again"));
        let message = refused.err().expect(why).message;
        assert!(message.contains(why), "{why}: {message}");
    }
    assert_eq!(layer.step(key, &good), expected[2], "the next step is good");
}

#[test]
fn a_step_that_was_not_planned_is_refused() {
    let Some(cuda) = gpu("a_step_that_was_not_planned_is_refused") else { return };
    let mut layer = Layer::new(cuda);
    let mut inputs = decode(&[(0, 3); MAX_SEQS]);
    inputs.groups[0].block_tables = vec![0; 4 * MAX_SEQS * BLOCKS];
    inputs.groups[0].stride = 4 * BLOCKS;
    let refused = layer.cuda.step(StepKey::Eager, &inputs, &[], &mut |_| panic!("nothing is launched"));
    assert!(refused.err().unwrap().message.contains("planned"));
}

#[test]
fn a_token_without_a_slot_writes_nothing() {
    let test = "a_token_without_a_slot_writes_nothing";
    let (Some(disturbed), Some(alone)) = (gpu(test), gpu(test)) else { return };
    let (mut disturbed, mut alone) = (Layer::new(disturbed), Layer::new(alone));
    let (first, second) = (decode(&[(0, 0)]), decode(&[(0, 1)]));
    for layer in [&mut alone, &mut disturbed] {
        layer.step(StepKey::Eager, &first);
    }
    let mut skipped = first;
    skipped.token_ids[0] += 1;
    skipped.groups[0].slot_mapping[0] = GroupInputs::SKIP;
    disturbed.step(StepKey::Eager, &skipped);
    assert_eq!(disturbed.step(StepKey::Eager, &second), alone.step(StepKey::Eager, &second));
}
