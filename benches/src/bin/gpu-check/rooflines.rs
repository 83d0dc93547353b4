//! Each op of a forward beside its roofline, at the shapes of an 8B model (or tiny ones).

use std::time::Instant;

use anyhow::Result;
use benches::{Ceilings, Heads, Matrix, Shape, Work, decode_inputs, prefill_inputs};
use kernels::cuda::Cuda;
use quant::{Format, Stored};
use serde_json::{Value, json};
use tensor::{
    Activation, AttnSpec, Backend, CacheSpec, KvDtype, KvScales, NormSpec, QkvSpec, Role, RopeTable, StepInputs,
    StepKey,
};

use crate::scale::Scale;

type Buf = <Cuda as Backend>::Buf;
type Act = tensor::Act<Cuda>;

const BLOCK_SIZE: usize = 16;
/// Weights of one shape that are used in turn hold more than this together, which no cache does.
const BEYOND_CACHES: usize = 128 << 20;
/// What a measurement lasts at least, in seconds.
const LONG_ENOUGH: f64 = 0.02;
const ROUNDS: usize = 3;

/// The card, its ceilings, and what was found.
struct Bench {
    cuda: Cuda,
    ceilings: Option<Ceilings>,
    /// Reading it back waits for all that was enqueued.
    tick: Buf,
    is_tiny: bool,
    rows: Vec<Value>,
}

/// Measures everything, prints a line each, and returns them.
pub fn run(scale: &Scale) -> Result<Value> {
    // As long as this one is there, others start at once.
    let first = Cuda::new(0)?;
    let name = first.describe();
    let (cuda, tick) = start()?;
    let mut bench = Bench { ceilings: Ceilings::of(&name), cuda, tick, is_tiny: scale.is_tiny, rows: Vec::new() };
    println!("{name}; ceilings {:?}", bench.ceilings);
    for format in [Format::Bf16, Format::Fp8E4m3, Format::Int4, Format::Q4_1] {
        // The head stays as it is where the rest is quantized.
        for (what, shape, is_glu) in scale.matrices().into_iter().filter(|m| format == Format::Bf16 || m.0 != "head") {
            bench.matmuls(what, format, shape, is_glu, scale.tokens)?;
        }
    }
    for &tokens in scale.tokens {
        bench.norm(tokens, scale.hidden)?;
        bench.rope_write(tokens, scale.heads)?;
    }
    for &(sequences, context, new) in scale.attention {
        bench.attend(sequences, context, new, scale.heads)?;
    }
    let ceilings = bench
        .ceilings
        .map(|c| json!({ "bytes_per_second": c.bytes_per_second, "flops_per_second": c.flops_per_second }));
    Ok(json!({ "device": name, "ceilings": ceilings, "ops": bench.rows }))
}

/// A device whose workspace is not planned yet, and something small on it.
fn start() -> Result<(Cuda, Buf)> {
    let mut cuda = Cuda::new(0)?;
    let tick = cuda.vector(&[0.0; 4])?;
    Ok((cuda, tick))
}

impl Bench {
    /// The workspace is planned once, by the largest step: every kind of step gets its own.
    fn start_over(&mut self) -> Result<()> {
        (self.cuda, self.tick) = start()?;
        Ok(())
    }

    fn matmuls(&mut self, what: &str, format: Format, shape: Shape, is_glu: bool, tokens: &[usize]) -> Result<()> {
        self.start_over()?;
        let parts = match is_glu {
            true => vec![Matrix::new(format, Shape { rows: shape.rows / 2, ..shape }); 2],
            false => vec![Matrix::new(format, shape)],
        };
        let bytes: usize = parts.iter().map(Matrix::num_bytes).sum();
        let copies = if self.is_tiny { 1 } else { BEYOND_CACHES.div_ceil(bytes) };
        let stored: Vec<Stored<'_>> = parts.iter().map(Matrix::stored).collect();
        let role = if is_glu { Role::Glu } else { Role::Column };
        let weights = (0..copies).map(|_| self.cuda.pack(&stored, role)).collect::<Result<Vec<_>, _>>()?;
        let gain = self.cuda.vector(&vec![1.0; shape.cols])?;
        let bits = 8.0 * bytes as f64 / (shape.rows * shape.cols) as f64;
        for &tokens in tokens.iter().rev() {
            let x = self.cuda.vector(&vec![0.5; tokens * shape.cols])?;
            let spec = NormSpec { gain: gain.clone(), eps: 1e-5, size: shape.cols };
            let wants = Cuda::wants(&weights[0]);
            let mut turn = weights.iter().cycle();
            let mut prepare = |b: &mut Cuda| b.norm(&x, &spec, wants);
            let mut op = |b: &mut Cuda, act: &Act| {
                let weight = turn.next().expect("a cycle of one at least");
                match is_glu {
                    true => drop(b.linear_glu(act, weight, Activation::Silu, wants)),
                    false => drop(b.linear(act, weight, None)),
                }
            };
            let seconds = self.seconds(&StepInputs::default(), &mut prepare, &mut op)?;
            let work = if is_glu { Work::linear_glu } else { Work::linear };
            let shown = format!("{what} {}x{} {format}", shape.rows, shape.cols);
            self.record(&shown, tokens, work(tokens, shape.rows, shape.cols, bits), seconds);
        }
        Ok(())
    }

    fn norm(&mut self, tokens: usize, cols: usize) -> Result<()> {
        self.start_over()?;
        let x = self.cuda.vector(&vec![0.5; tokens * cols])?;
        let spec = NormSpec { gain: self.cuda.vector(&vec![1.0; cols])?, eps: 1e-5, size: cols };
        let wants = tensor::ActSet::of(tensor::Encoding::Bf16);
        let mut op = |b: &mut Cuda, (): &()| drop(b.norm(&x, &spec, wants));
        let seconds = self.seconds(&StepInputs::default(), &mut |_| (), &mut op)?;
        self.record("norm", tokens, Work::norm(tokens, cols), seconds);
        Ok(())
    }

    fn rope_write(&mut self, tokens: usize, heads: Heads) -> Result<()> {
        self.start_over()?;
        let inputs = prefill_inputs(tokens, tokens, BLOCK_SIZE);
        let mut layer = Layer::new(&mut self.cuda, &inputs, heads)?;
        let mut op = |b: &mut Cuda, (): &()| drop(b.rope_write(&layer.qkv, &layer.spec, &mut layer.cache, 0));
        let seconds = self.seconds(&inputs, &mut |_| (), &mut op)?;
        self.record("rope_write", tokens, Work::rope_write(tokens, heads), seconds);
        Ok(())
    }

    fn attend(&mut self, sequences: usize, context: usize, new: usize, heads: Heads) -> Result<()> {
        self.start_over()?;
        let inputs = match new {
            1 => decode_inputs(sequences, context, BLOCK_SIZE),
            _ => prefill_inputs(new, context, BLOCK_SIZE),
        };
        let Layer { qkv, spec, mut cache } = Layer::new(&mut self.cuda, &inputs, heads)?;
        let (attention, wants) = (attention(heads), tensor::ActSet::of(tensor::Encoding::Bf16));
        let q = std::cell::RefCell::new(&mut cache);
        let mut prepare = |b: &mut Cuda| b.rope_write(&qkv, &spec, &mut q.borrow_mut(), 0);
        let mut op = |b: &mut Cuda, rotated: &Buf| drop(b.attend(rotated, &attention, &q.borrow(), 0, wants));
        let seconds = self.seconds(&inputs, &mut prepare, &mut op)?;
        let what = format!("attend {new} after {} x {sequences}", context - new);
        self.record(&what, sequences * new, Work::attend(sequences, context, new, heads), seconds);
        Ok(())
    }

    /// Seconds of one `op`: what more of them in a step take longer, so that neither the step nor its start counts. The median of
    /// several rounds; none where the machine's noise is larger.
    fn seconds<P>(
        &mut self,
        inputs: &StepInputs,
        prepare: &mut dyn FnMut(&mut Cuda) -> P,
        op: &mut dyn FnMut(&mut Cuda, &P),
    ) -> Result<Option<f64>> {
        self.step(StepKey::Plan, inputs, 1, prepare, op)?;
        self.step(StepKey::Eager, inputs, 1, prepare, op)?;
        let few = self.step(StepKey::Eager, inputs, 1, prepare, op)?;
        let more = self.step(StepKey::Eager, inputs, 4, prepare, op)?;
        let guess = ((more - few) / 3.0).max(1e-6);
        let many = if self.is_tiny { 4 } else { ((LONG_ENOUGH / guess) as usize).clamp(8, 2000) };
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let few = self.step(StepKey::Eager, inputs, 1, prepare, op)?;
            let more = self.step(StepKey::Eager, inputs, many, prepare, op)?;
            rounds.push((more - few) / (many - 1) as f64);
        }
        rounds.sort_unstable_by(f64::total_cmp);
        Ok(Some(rounds[ROUNDS / 2]).filter(|seconds| *seconds > 0.0))
    }

    /// Seconds of a step with `count` ops.
    fn step<P>(
        &mut self,
        key: StepKey,
        inputs: &StepInputs,
        count: usize,
        prepare: &mut dyn FnMut(&mut Cuda) -> P,
        op: &mut dyn FnMut(&mut Cuda, &P),
    ) -> Result<f64> {
        let tick = self.tick.clone();
        let started = Instant::now();
        self.cuda.step(key, inputs, &mut |b| {
            let prepared = prepare(b);
            (0..count).for_each(|_| op(b, &prepared));
            tick.clone()
        })?;
        if key != StepKey::Plan {
            self.cuda.read(&self.tick, &mut Vec::new())?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn record(&mut self, what: &str, tokens: usize, work: Work, seconds: Option<f64>) {
        let share = self.ceilings.zip(seconds).map(|(ceilings, seconds)| work.seconds(&ceilings) / seconds);
        let rates = seconds.map_or_else(
            || "lost in noise".to_owned(),
            |s| {
                format!(
                    "{:>10.1} us {:>8.1} GB/s {:>7.2} TFLOP/s",
                    s * 1e6,
                    work.bytes / s / 1e9,
                    work.flops / s / 1e12
                )
            },
        );
        let shown = share.map_or_else(String::new, |share| format!("{:>5.0}% of the roofline", 100.0 * share));
        println!("{what:<34} T={tokens:<5} {rates} {shown}");
        self.rows.push(json!({
            "op": what, "tokens": tokens, "seconds": seconds, "bytes": work.bytes, "flops": work.flops,
            "of_roofline": share,
        }));
    }
}

/// What attention of one layer needs.
struct Layer {
    qkv: Buf,
    spec: QkvSpec<Cuda>,
    cache: <Cuda as Backend>::Cache,
}

impl Layer {
    fn new(cuda: &mut Cuda, inputs: &StepInputs, heads: Heads) -> Result<Self> {
        let blocks = inputs.groups[0].block_tables.iter().max().map_or(1, |&max| max as usize + 1);
        let cache = cuda.new_cache(&CacheSpec {
            group: 0,
            layers: 1,
            num_kv_heads: heads.kv,
            head_dim: heads.dim,
            block_size: BLOCK_SIZE,
            blocks,
            dtype: KvDtype::Auto,
        })?;
        let longest = inputs.seq_lens.iter().max().map_or(1, |&len| len as usize);
        let angles = vec![0.5; longest * heads.dim / 2];
        let rope = cuda.rope_table(&RopeTable { cos: angles.clone(), sin: angles, rotary_dim: heads.dim })?;
        let qkv = cuda.vector(&vec![0.1; inputs.num_tokens() * (heads.q + 2 * heads.kv) * heads.dim])?;
        let spec = QkvSpec {
            num_heads: heads.q,
            num_kv_heads: heads.kv,
            head_dim: heads.dim,
            q_norm: None,
            k_norm: None,
            rope,
            rotary_dim: heads.dim,
            kv_scales: KvScales::default(),
        };
        Ok(Self { qkv, spec, cache })
    }
}

fn attention(heads: Heads) -> AttnSpec<Cuda> {
    AttnSpec {
        num_heads: heads.q,
        num_kv_heads: heads.kv,
        head_dim: heads.dim,
        scale: 1.0 / (heads.dim as f32).sqrt(),
        window: None,
        softcap: None,
        sinks: None,
        kv_scales: KvScales::default(),
    }
}
