//! Each op of a forward beside its roofline, at the shapes of an 8B model (or tiny ones).
//!
//! An op is enqueued many times in one step, which is recorded as a graph where the product would record it: neither launches by
//! the host nor the step's start count. What the product reads from the GPU's memory comes from there: weights and KV caches are
//! used in turn, more of them than any cache holds. Inputs are random: tensor cores are faster on constants.

mod attention;
mod copies;
mod experts;
mod matmuls;
mod rows;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use benches::{Ceilings, Work, decode_inputs};
use kernels::cuda::Cuda;
use quant::Format;
use serde_json::{Value, json};
use tensor::{Backend, StepInputs, StepKey};
use testkit::Random;

use crate::goals;
use crate::scale::Scale;

type Buf = <Cuda as Backend>::Buf;

const BLOCK_SIZE: usize = 16;
/// What is used in turn holds more than this together.
const BEYOND_CACHES: usize = 256 << 20;
/// What one step of a measurement lasts about, and what the card is kept busy before, until its clocks are up.
const LONG_ENOUGH: Duration = Duration::from_millis(20);
const WARM_UP: Duration = Duration::from_millis(60);
const ROUNDS: usize = 5;
/// Columns of what is read back to wait for a step.
const TICK_COLS: usize = 4;
/// Random values; longer inputs repeat them.
const NOISE: usize = 1 << 16;

/// The card, its ceilings, and what was found.
struct Bench<'a> {
    scale: &'a Scale,
    cuda: Cuda,
    ceilings: Option<Ceilings>,
    rows: Vec<Value>,
    name: String,
    result: PathBuf,
}

/// Measures everything, prints a line each, and writes them to `result` as they come.
pub fn run(scale: &Scale, result: &Path) -> Result<()> {
    // As long as this one is there, others start at once.
    let first = Cuda::new(0)?;
    let name = first.describe();
    let (cuda, ceilings) = (Cuda::new(0)?, Ceilings::of(&name));
    println!("{name}; ceilings {ceilings:?}");
    let mut bench = Bench { scale, cuda, ceilings, rows: Vec::new(), name, result: result.to_owned() };
    for format in [Format::Bf16, Format::Fp8E4m3, Format::Int4] {
        bench.matmuls(format, false)?;
    }
    bench.attention()?;
    for format in [Format::Bf16, Format::Fp8E4m3] {
        bench.matmuls(format, true)?;
    }
    bench.sampling()?;
    bench.small_ops()?;
    bench.rotations()?;
    for format in [Format::Bf16, Format::Fp8E4m3, Format::Int4] {
        bench.experts(format)?;
    }
    bench.block_copies()?;
    for format in [Format::Q4K, Format::Q6K] {
        bench.matmuls(format, false)?;
    }
    Ok(())
}

impl Bench<'_> {
    /// The workspace is planned once, by the largest step: every kind of step gets its own.
    fn start_over(&mut self) -> Result<()> {
        self.cuda = Cuda::new(0)?;
        Ok(())
    }

    /// How many of `bytes` each are used in turn.
    fn copies(&self, bytes: usize) -> usize {
        if self.scale.is_tiny { 2 } else { BEYOND_CACHES.div_ceil(bytes).clamp(1, 64) }
    }

    /// Seconds of one `op`, the median of several rounds. `prepare` runs once a step; `op` gets its number in the step.
    fn seconds<P>(
        &mut self,
        inputs: &StepInputs,
        prepare: &mut dyn FnMut(&mut Cuda) -> P,
        op: &mut dyn FnMut(&mut Cuda, &P, usize),
    ) -> Result<f64> {
        let tick = self.cuda.vector(&vec![0.0; inputs.num_tokens() * TICK_COLS])?;
        let mut step = |cuda: &mut Cuda, key, count| step(cuda, &tick, (key, inputs), count, prepare, op);
        let cuda = &mut self.cuda;
        step(cuda, StepKey::Plan, 1)?;
        step(cuda, StepKey::Eager, 1)?;
        let (few, more) = (step(cuda, StepKey::Eager, 1)?, step(cuda, StepKey::Eager, 9)?);
        let guess = (more.saturating_sub(few) / 8).max(Duration::from_micros(1));
        let many = (LONG_ENOUGH.as_nanos() / guess.as_nanos()) as usize;
        let count = if self.scale.is_tiny { 4 } else { many.clamp(8, 1000) };
        let key = match inputs.is_decode() {
            true => StepKey::Decode { bucket: inputs.num_seqs() as u32 },
            false => StepKey::Eager,
        };
        let warmed = Instant::now();
        // The first two run kernel by kernel and are recorded.
        for round in 0.. {
            step(cuda, key, count)?;
            if round > 2 && (self.scale.is_tiny || warmed.elapsed() > WARM_UP) {
                break;
            }
        }
        let mut rounds = (0..ROUNDS).map(|_| step(cuda, key, count)).collect::<Result<Vec<_>>>()?;
        rounds.sort_unstable();
        Ok(rounds[ROUNDS / 2].as_secs_f64() / count as f64)
    }

    fn record(&mut self, what: &str, tokens: usize, work: Work, seconds: f64) -> Result<()> {
        self.record_by("own", what, tokens, work, seconds)
    }

    /// `by`: whose kernels, where two can do the same.
    fn record_by(&mut self, by: &str, what: &str, tokens: usize, work: Work, seconds: f64) -> Result<()> {
        let roofline = self.ceilings.map(|ceilings| work.seconds(&ceilings));
        let share = roofline.map(|roofline| roofline / seconds);
        let wanted = self.ceilings.and_then(|ceilings| goals::of_op(work, &ceilings));
        let shown = share.map_or_else(String::new, |share| format!("{:>5.0}% of the roofline", 100.0 * share));
        let flops = work.flops + work.fp8_flops;
        println!(
            "{what:<34} {by:<8} T={tokens:<5} {:>10.1} us {:>8.1} GB/s {:>7.2} TFLOP/s {shown}",
            seconds * 1e6,
            work.bytes / seconds / 1e9,
            flops / seconds / 1e12,
        );
        self.rows.push(json!({
            "op": what, "by": by, "tokens": tokens, "seconds": seconds, "bytes": work.bytes, "flops": flops,
            "roofline_seconds": roofline, "of_roofline": share,
            "wanted": wanted, "met": wanted.zip(share).map(|(wanted, share)| share >= wanted),
        }));
        crate::write(&self.result, &json!({ "device": self.name, "ops": self.rows }).to_string())
    }
}

/// What a step with `count` ops takes, until its last result can be read.
fn step<P>(
    cuda: &mut Cuda,
    tick: &Buf,
    (key, inputs): (StepKey, &StepInputs),
    count: usize,
    prepare: &mut dyn FnMut(&mut Cuda) -> P,
    op: &mut dyn FnMut(&mut Cuda, &P, usize),
) -> Result<Duration> {
    let started = Instant::now();
    let last = cuda.step(key, inputs, &[], &mut |b| {
        let prepared = prepare(b);
        (0..count).for_each(|idx| op(b, &prepared, idx));
        b.gather(tick)
    })?;
    if key != StepKey::Plan {
        cuda.read(&last, &mut Vec::new())?;
    }
    Ok(started.elapsed())
}

/// A step of so many tokens whose positions nobody looks at.
fn plain_inputs(tokens: usize) -> StepInputs {
    decode_inputs(tokens, 1, BLOCK_SIZE)
}

/// Random values around zero.
fn noise(len: usize) -> Vec<f32> {
    Random::new(7).vector(NOISE.min(len)).into_iter().cycle().take(len).collect()
}
