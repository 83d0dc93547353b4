//! A layer on every backend, op by op through the trait, against the reference: what the backends' own tests leave out is here, so that no
//! method of `Backend` goes without a call on both.

#![allow(clippy::unwrap_used)]

use kernels::cpu::{Activations, Cpu, CpuOptions, Isa};
use kernels::cuda::Cuda;
use kernels::reference::Reference;
use quant::{Format, Stored};
use tensor::{
    Activation, AttnSpec, Backend, CacheSpec, GroupInputs, KvDtype, KvScales, NormSpec, QkvSpec, Role, RopeTable,
    StepInputs, StepKey,
};
use testkit::{Random, Tolerance, check_close};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 16;
const HIDDEN: usize = HEADS * DIM;
const UNITS: usize = 96;
const VOCAB: usize = 32;
const BLOCK_SIZE: usize = 16;

/// What bf16 in between leaves of a value.
const CLOSE: Tolerance = Tolerance { absolute: 0.03, relative: 0.03 };

fn pack<B: Backend>(b: &mut B, seed: u64, rows: usize, cols: usize, role: Role) -> B::Weight {
    let values = Random::new(seed).vector(rows * cols);
    let bytes: Vec<u8> = values.iter().flat_map(|x| (x * 0.2).to_le_bytes()).collect();
    let part = Stored::new(rows, cols, Format::F32, &bytes).unwrap();
    let parts = if role == Role::Glu { vec![part; 2] } else { vec![part] };
    b.pack(&parts, role).unwrap()
}

/// Five tokens of one sequence from `start` on, whose blocks are `blocks`.
fn tokens(start: usize, blocks: &[u32]) -> StepInputs {
    let slot = |at: usize| blocks[at / BLOCK_SIZE] * BLOCK_SIZE as u32 + (at % BLOCK_SIZE) as u32;
    StepInputs {
        token_ids: (0..5).map(|idx| (start as u32 + 3 * idx) % VOCAB as u32).collect(),
        positions: (0..5).map(|idx| (start + idx) as u32).collect(),
        rows: vec![0],
        cu_seqlens_q: vec![0, 5],
        seq_lens: vec![start as u32 + 5],
        logit_tokens: (0..5).collect(),
        groups: vec![GroupInputs {
            slot_mapping: (start..start + 5).map(slot).collect(),
            block_tables: blocks.to_vec(),
            stride: blocks.len(),
        }],
    }
}

fn run<B: Backend>(b: &mut B, inputs: &StepInputs, body: &mut dyn FnMut(&mut B) -> B::Buf) -> Vec<f32> {
    let out = b.step(StepKey::Eager, inputs, body).unwrap();
    let mut values = Vec::new();
    b.read(&out, &mut values).unwrap();
    values
}

/// A gated unit, added to the residual stream.
fn gated<B: Backend>(b: &mut B, f: Activation) -> Vec<f32> {
    let norm = NormSpec { gain: b.vector(&[1.0; HIDDEN]).unwrap(), eps: 1e-5, size: HIDDEN };
    let table = pack(b, 1, VOCAB, HIDDEN, Role::Head);
    let (glu, down) = (pack(b, 2, UNITS, HIDDEN, Role::Glu), pack(b, 3, HIDDEN, UNITS, Role::Row));
    let bias = b.vector(&Random::new(4).vector(HIDDEN)).unwrap();
    let inputs = tokens(0, &[0]);
    let mut body = |b: &mut B| {
        let x = b.embed(&table, 4.0);
        let act = b.norm(&x, &norm, B::wants(&glu));
        let act = b.linear_glu(&act, &glu, f, B::wants(&down));
        b.linear_add(&act, &down, Some(&bias), &x);
        x
    };
    b.step(StepKey::Plan, &inputs, &mut body).unwrap();
    run(b, &inputs, &mut body)
}

/// Attention over two chunks; the first one's block is copied in between, and the second reads the copy.
fn attention<B: Backend>(b: &mut B) -> Vec<f32> {
    let before = b.memory();
    let norm = NormSpec { gain: b.vector(&[1.0; HIDDEN]).unwrap(), eps: 1e-5, size: HIDDEN };
    let angle = |at: usize| (at / (DIM / 2)) as f32 * 0.3;
    let table = |f: fn(f32) -> f32| (0..64 * DIM / 2).map(|at| f(angle(at))).collect();
    let rope = b.rope_table(&RopeTable { cos: table(f32::cos), sin: table(f32::sin), rotary_dim: DIM }).unwrap();
    let (num_heads, num_kv_heads, head_dim, kv_scales) = (HEADS, KV_HEADS, DIM, KvScales::default());
    let (q_norm, k_norm, rotary_dim) = (None, None, DIM);
    let qkv_spec = QkvSpec { num_heads, num_kv_heads, head_dim, q_norm, k_norm, rope, rotary_dim, kv_scales };
    let (scale, window, softcap, sinks) = (0.25, None, None, None);
    let attn_spec = AttnSpec { num_heads, num_kv_heads, head_dim, scale, window, softcap, sinks, kv_scales };
    let table = pack(b, 1, VOCAB, HIDDEN, Role::Head);
    let qkv = pack(b, 5, (HEADS + 2 * KV_HEADS) * DIM, HIDDEN, Role::Column);
    let out = pack(b, 6, HIDDEN, HIDDEN, Role::Row);
    let spec = CacheSpec {
        group: 0,
        layers: 1,
        num_kv_heads,
        head_dim,
        block_size: BLOCK_SIZE,
        blocks: 3,
        dtype: KvDtype::Auto,
    };
    let mut cache = b.new_cache(&spec).unwrap();
    assert!(b.memory().resident > before.resident && b.memory().dedicated == before.dedicated);
    let chunks = [tokens(0, &[0]), tokens(5, &[2])];
    let forward = |b: &mut B, cache: &mut B::Cache| {
        let x = b.embed(&table, 4.0);
        let act = b.norm(&x, &norm, B::wants(&qkv));
        let qkv = b.linear(&act, &qkv, None);
        let act = b.rope_attend(&qkv, &qkv_spec, &attn_spec, cache, 0, B::wants(&out));
        b.linear_add(&act, &out, None, &x);
        b.gather(&x)
    };
    for inputs in &chunks {
        b.step(StepKey::Plan, inputs, &mut |b| forward(b, &mut cache)).unwrap();
    }
    assert!(b.workspace_bytes() > 0, "a step takes memory");
    let first = run(b, &chunks[0], &mut |b| forward(b, &mut cache));
    b.copy_blocks(&mut cache, &[(0, 2)]).unwrap();
    [first, run(b, &chunks[1], &mut |b| forward(b, &mut cache))].concat()
}

/// All results of a backend, by name.
fn results<B: Backend>(new: impl Fn() -> B) -> [(&'static str, Vec<f32>); 3] {
    [
        ("silu", gated(&mut new(), Activation::Silu)),
        ("gelu", gated(&mut new(), Activation::GeluTanh)),
        ("attention", attention(&mut new())),
    ]
}

fn check<B: Backend>(what: &str, new: impl Fn() -> B) {
    for ((name, actual), (_, expected)) in results(new).iter().zip(results(Reference::new)) {
        check_close(&format!("{what}: {name}"), actual, &expected, CLOSE);
    }
}

#[test]
fn the_cpu_is_the_references_twin() {
    let [(_, silu), (_, gelu), _] = results(Reference::new);
    assert!(silu.iter().zip(&gelu).any(|(silu, gelu)| (silu - gelu).abs() > 0.1), "the activations can be told apart");
    for isa in Isa::available() {
        for activations in [Activations::Int8, Activations::Int16] {
            let options = CpuOptions { threads: Some(2), isa: Some(isa), activations };
            check(&format!("{isa} {activations:?}"), || Cpu::new(options).unwrap());
        }
    }
}

#[test]
fn the_gpu_is_the_references_twin() {
    match Cuda::new(0) {
        Ok(_) => check("cuda", || Cuda::new(0).unwrap()),
        Err(error) => testkit::skip("the_gpu_is_the_references_twin", &error.to_string()),
    }
}
