//! The CPU kernels at the default model's shapes, each beside what this machine allows.
//!
//! `cargo bench -p benches` takes about two minutes; a name as argument picks some, TOKENMILL_THREADS, TOKENMILL_ISA
//! and TOKENMILL_ACTIVATIONS set how to run. Compare two versions by running them in turn: A B A B.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use benches::{Bound, Experts, Matrix, SHAPES, Shape, Timed, Work, cpu, decode_inputs, prefill_inputs, weight_bytes};
use contract::SamplingParams;
use criterion::{Criterion, criterion_group, criterion_main};
use kernels::cpu::{Buf, Cpu, Peaks};
use quant::{Format, Stored};
use sampler::{Row, Sampled};
use tensor::{
    Act, ActSet, Activation, AttnSpec, Backend, CacheSpec, Encoding, KvDtype, KvScales, NormSpec, QkvSpec, Role,
    RopeTable, RouteSpec, StepInputs, StepKey,
};
use testkit::Random;

const ROWS: [usize; 4] = [1, 8, 32, 256];
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const HIDDEN: usize = HEADS * HEAD_DIM;
const BLOCK_SIZE: usize = 16;

/// A device, and a step's work on it that can be repeated.
struct Bench<'a> {
    criterion: &'a mut Criterion,
    peaks: Peaks,
}

impl Bench<'_> {
    /// Plans `body`, then times it, and prints its rates.
    fn run(
        &mut self,
        name: &str,
        bound: &Bound,
        cpu: &mut Cpu,
        inputs: &StepInputs,
        body: &mut dyn FnMut(&mut Cpu) -> Buf,
    ) {
        cpu.step(StepKey::Plan, inputs, &[], body).expect("the step can be planned");
        let best = Cell::new(Duration::MAX);
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        let start = Instant::now();
                        black_box(cpu.step(StepKey::Eager, inputs, &[], body).expect("the step runs"));
                        let elapsed = start.elapsed();
                        best.set(best.get().min(elapsed));
                        elapsed
                    })
                    .sum()
            });
        });
        if best.get() < Duration::MAX {
            println!("{}", Timed { best: best.get() }.report(name, bound, &self.peaks));
        }
    }
}

/// `rows` x `cols` made-up activations in the encodings of `set`, kept over steps.
fn activations(b: &mut Cpu, x: &Buf, gain: &Buf, cols: usize, set: ActSet) -> Act<Cpu> {
    b.norm(x, &NormSpec { gain: gain.clone(), eps: 1e-5, size: cols }, set)
}

fn matmul(bench: &mut Bench<'_>, format: Format, shape: Shape, rows: usize) {
    let Shape { rows: outputs, cols } = shape;
    let bytes = weight_bytes(format, shape);
    let mut cpu = cpu();
    let glu = outputs == 3072;
    let half = Shape { rows: outputs / 2, cols };
    let weight = match glu {
        true => {
            let parts: Vec<Stored<'_>> = bytes.chunks(bytes.len() / 2).map(|part| stored(half, format, part)).collect();
            cpu.pack(&parts, Role::Glu)
        }
        false => cpu.pack(&[stored(shape, format, &bytes)], Role::Column),
    }
    .expect("the weight packs");
    let wants = Cpu::wants(&weight);
    let x = cpu.vector(&vec![0.5; rows * cols]).expect("a vector");
    let gain = cpu.vector(&vec![1.0; cols]).expect("a vector");
    let macs = (rows * outputs * cols) as f64;
    let encoding = wants.iter().next().expect("a weight wants some encoding");
    let of = |wanted: Encoding| if encoding == wanted { macs } else { 0.0 };
    let (bf16_macs, f32_macs) = (of(Encoding::Bf16), of(Encoding::F32));
    let bound = Bound { int8_macs: planes(wants) * macs, bf16_macs, f32_macs, bytes: bytes.len() as f64 };
    let (mut calls, mut act) = (0, None);
    let name = format!("{format} {outputs}x{cols} M={rows}");
    bench.run(&name, &bound, &mut cpu, &StepInputs::default(), &mut |b| {
        calls += 1;
        // The first call plans, the second computes the activations, and only the product is left to time.
        if calls <= 2 {
            act = None;
            act = Some(activations(b, &x, &gain, cols, wants));
        }
        let act = act.as_ref().expect("the first calls made the activations");
        match glu {
            true => b.linear_glu(act, &weight, Activation::Silu, ActSet::of(encoding)).get(encoding).clone(),
            false => b.linear(act, &weight, None),
        }
    });
}

/// Products of bytes for one of a coded weight.
fn planes(wants: ActSet) -> f64 {
    match wants.iter().next() {
        Some(Encoding::Int8G32) => 1.0,
        Some(Encoding::Int16G32) => 2.0,
        _ => 0.0,
    }
}

fn stored(shape: Shape, format: Format, bytes: &[u8]) -> Stored<'_> {
    Stored::new(shape.rows, shape.cols, format, bytes).expect("whole blocks")
}

fn matmuls(bench: &mut Bench<'_>) {
    for format in [Format::Q4_1, Format::Q8_0, Format::Bf16, Format::F32] {
        let wide = matches!(format, Format::Bf16 | Format::F32);
        for shape in SHAPES {
            for rows in ROWS {
                if wide && shape.rows > 10_000 && rows > 8 {
                    continue;
                }
                matmul(bench, format, shape, rows);
            }
        }
    }
}

/// Rotation, KV write and attention of one layer.
fn attention(bench: &mut Bench<'_>, name: &str, inputs: &StepInputs, queries: f64, attend: bool) {
    let mut cpu = cpu();
    let blocks = inputs.groups[0].block_tables.iter().max().map_or(1, |&max| max as usize + 1);
    let spec = CacheSpec {
        group: 0,
        layers: 1,
        num_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        block_size: BLOCK_SIZE,
        blocks,
        dtype: KvDtype::Auto,
    };
    let mut cache = cpu.new_cache(&spec).expect("a cache");
    let max_len = inputs.seq_lens.iter().max().map_or(1, |&len| len as usize);
    let angles = vec![0.5; max_len * HEAD_DIM / 2];
    let rope = cpu.rope_table(&RopeTable { cos: angles.clone(), sin: angles, rotary_dim: HEAD_DIM }).expect("tables");
    let qkv = cpu.vector(&vec![0.1; inputs.num_tokens() * (HEADS + 2 * KV_HEADS) * HEAD_DIM]).expect("a vector");
    let q = cpu.vector(&vec![0.1; inputs.num_tokens() * HIDDEN]).expect("a vector");
    let qkv_spec = QkvSpec {
        num_heads: HEADS,
        num_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        q_norm: None,
        k_norm: None,
        rope,
        rotary_dim: HEAD_DIM,
        kv_scales: KvScales::default(),
    };
    let attn_spec = AttnSpec {
        num_heads: HEADS,
        num_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        scale: 0.125,
        window: None,
        softcap: None,
        sinks: None,
        kv_scales: KvScales::default(),
    };
    let kv_bytes = inputs.seq_lens.iter().map(|&len| len as usize).sum::<usize>() * KV_HEADS * HEAD_DIM * 4;
    let bound = match attend {
        true => {
            Bound { bf16_macs: 2.0 * queries * (HEADS * HEAD_DIM) as f64, bytes: kv_bytes as f64, ..Bound::default() }
        }
        false => Bound { bytes: (qkv_bytes(inputs.num_tokens())) as f64, ..Bound::default() },
    };
    bench.run(name, &bound, &mut cpu, inputs, &mut |b| match attend {
        true => b.attend(&q, &attn_spec, &cache, 0, ActSet::of(Encoding::F32)).get(Encoding::F32).clone(),
        false => b.rope_write(&qkv, &qkv_spec, &mut cache, 0),
    });
}

fn qkv_bytes(tokens: usize) -> usize {
    tokens * (HEADS + 2 * KV_HEADS) * HEAD_DIM * 4
}

fn attentions(bench: &mut Bench<'_>) {
    for context in [512, 4096] {
        for seqs in [1, 8] {
            let name = format!("attend {seqs} x 1 of {context}");
            attention(bench, &name, &decode_inputs(seqs, context, BLOCK_SIZE), (seqs * context) as f64, true);
        }
        let seen = (0..256).map(|idx| (context - 256 + idx + 1) as f64).sum();
        let name = format!("attend 256 of {context}");
        attention(bench, &name, &prefill_inputs(256, context, BLOCK_SIZE), seen, true);
    }
    for tokens in [1, 256] {
        attention(bench, &format!("rope_write T={tokens}"), &prefill_inputs(tokens, 512, BLOCK_SIZE), 0.0, false);
    }
}

fn norms(bench: &mut Bench<'_>) {
    for rows in [1, 256] {
        for (what, emit) in [("f32", Encoding::F32), ("int8", Encoding::Int8G32), ("int16", Encoding::Int16G32)] {
            let mut cpu = cpu();
            let x = cpu.vector(&vec![0.5; rows * HIDDEN]).expect("a vector");
            let gain = cpu.vector(&vec![1.0; HIDDEN]).expect("a vector");
            let bound = Bound { bytes: (rows * HIDDEN * 4) as f64, ..Bound::default() };
            bench.run(&format!("norm to {what} M={rows}"), &bound, &mut cpu, &StepInputs::default(), &mut |b| {
                activations(b, &x, &gain, HIDDEN, ActSet::of(emit)).get(emit).clone()
            });
        }
    }
}

/// Picking tokens out of `rows` of logits over the default model's vocabulary.
fn sampling(bench: &mut Bench<'_>, what: &str, params: &SamplingParams) {
    for rows in [1, 32] {
        let mut cpu = cpu();
        let vocab = SHAPES[3].rows;
        let logits = cpu.vector(&Random::new(1).vector(rows * vocab)).expect("a vector");
        let mut picked: Vec<Row<'_>> = (0..rows).map(|logits| Row::alone(logits, params)).collect();
        let mut sampled = Sampled::default();
        let inputs = decode_inputs(rows, 16, BLOCK_SIZE);
        let bound = Bound { bytes: (rows * vocab * 4) as f64, ..Bound::default() };
        bench.run(&format!("sample {what} M={rows}"), &bound, &mut cpu, &inputs, &mut |b| {
            sampled.clear();
            b.sample(&logits, &mut picked, &mut sampled).expect("rows of these logits");
            logits.clone()
        });
        assert!(sampled.rows.iter().all(|row| row.finite), "what was timed picks tokens");
    }
}

fn samplings(bench: &mut Bench<'_>) {
    sampling(bench, "greedy", &SamplingParams::greedy());
    sampling(bench, "at 0.8", &SamplingParams { temperature: 0.8, ..SamplingParams::default() });
    sampling(
        bench,
        "top-k 50, top-p 0.9",
        &SamplingParams { temperature: 0.8, top_k: 50, top_p: 0.9, ..SamplingParams::default() },
    );
}

const EXPERTS: Experts = Experts { num: 32, top_k: 4, hidden: 1024, ffn: 512 };

/// A mixture of experts: routing, its matmuls and the sum. Tokens spread over experts by chance.
fn mixtures(bench: &mut Bench<'_>) {
    let Experts { num, top_k, hidden, ffn } = EXPERTS;
    let [up, down] = [(ffn, hidden), (hidden, ffn)].map(|(rows, cols)| Matrix::new(Format::Q4_1, Shape { rows, cols }));
    let bits = 8.0 * up.num_bytes() as f64 / (hidden * ffn) as f64;
    let spec = RouteSpec { num_experts: num, top_k, renormalize: true };
    for rows in ROWS {
        let mut cpu = cpu();
        let gate_ups = cpu.pack(&vec![up.stored(); 2 * num], Role::ExpertsGlu).expect("a stack");
        let downs = cpu.pack(&vec![down.stored(); num], Role::Experts).expect("a stack");
        let x = cpu.vector(&vec![0.5; rows * hidden]).expect("a vector");
        let gain = cpu.vector(&vec![1.0; hidden]).expect("a vector");
        let logits = cpu.vector(&Random::new(2).vector(rows * num)).expect("a vector");
        let (wants, gated_wants) = (Cpu::wants(&gate_ups), Cpu::wants(&downs));
        let work = Work::experts(rows, EXPERTS, bits);
        let bound = Bound { int8_macs: planes(wants) * work.flops / 2.0, bytes: work.bytes, ..Bound::default() };
        let name = format!("{top_k} of {num} experts M={rows}");
        bench.run(&name, &bound, &mut cpu, &StepInputs::default(), &mut |b| {
            let act = activations(b, &x, &gain, hidden, wants);
            let routing = b.route(&logits, &spec);
            let gated = b.experts_glu(&act, &gate_ups, &routing, Activation::Silu, gated_wants);
            b.experts_add(&gated, &downs, &routing, &x);
            x.clone()
        });
    }
}

fn all(criterion: &mut Criterion) {
    let cpu = cpu();
    let peaks = cpu.peaks();
    println!("{}: {peaks:.0?}", cpu.describe());
    let mut bench = Bench { criterion, peaks };
    matmuls(&mut bench);
    attentions(&mut bench);
    norms(&mut bench);
    samplings(&mut bench);
    mixtures(&mut bench);
}

criterion_group! {
    name = group;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(250));
    targets = all
}
criterion_main!(group);
