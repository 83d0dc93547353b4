//! `tokenmill bench latency`: one batch from its prompts to its last token.

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use loadgen::{Machine, percentile};
use serde_json::{Map, Value, json};

use super::offline::{self, Elapsed, Lengths};
use crate::args::{BatchShape, BenchLatencyArgs};
use crate::assemble::Assembled;

/// Prints vLLM's keys; times are in seconds. A sweep is a list of points, which is saved as it grows.
pub(super) fn run(args: &BenchLatencyArgs) -> Result<()> {
    let shapes = shapes(args);
    let largest =
        shapes.iter().map(|shape| shape.batch.saturating_add(shape.beside.is_some().into())).max().unwrap_or(0);
    let longest = shapes.iter().map(|shape| lengths(*shape)).max_by_key(|lengths| lengths.longest());
    let longest = longest.unwrap_or(Lengths { input: 0, output: 0, beside: None });
    let assembled = offline::start(&args.model, largest, longest)?;
    let before = Machine::load_average();
    let batches = shapes.len() * (args.num_iters_warmup + args.num_iters) as usize;
    let mut bench = Bench { args, assembled, bar: super::bar(batches, "batches".to_owned()), round: 0 };
    let mut points = Vec::new();
    for shape in &shapes {
        points.push(bench.point(*shape)?);
        if let Some(path) = args.save_json.as_deref().filter(|_| points.len() < shapes.len()) {
            super::write(path, &format!("{:#}\n", json!({ "points": points })))?;
        }
    }
    bench.bar.finish_and_clear();
    bench.assembled.engine.shutdown(Duration::ZERO);
    let result = match <[Value; 1]>::try_from(points) {
        Ok([point]) => point,
        Err(points) => json!({ "points": points }),
    };
    super::finish(result, before, args.save_json.as_deref())
}

/// What was asked for by name, or every prompt's length with every batch size.
fn shapes(args: &BenchLatencyArgs) -> Vec<BatchShape> {
    if !args.shapes.is_empty() {
        return args.shapes.clone();
    }
    let shape = |input: u32, batch: u32| BatchShape { batch, input, output: args.output_len, beside: None };
    args.input_len.iter().flat_map(|&input| args.batch_size.iter().map(move |&batch| shape(input, batch))).collect()
}

fn lengths(shape: BatchShape) -> Lengths {
    Lengths { input: shape.input, output: shape.output, beside: shape.beside }
}

/// An engine under measurement.
struct Bench<'a> {
    args: &'a BenchLatencyArgs,
    assembled: Assembled,
    bar: ProgressBar,
    /// Batches so far: none repeats another's prompts.
    round: u32,
}

impl Bench<'_> {
    /// One shape, after its warm-up.
    fn point(&mut self, shape: BatchShape) -> Result<Value> {
        let lengths = lengths(shape);
        self.batches(self.args.num_iters_warmup, shape)?;
        let device_before = self.assembled.meter.device_time();
        let batches = self.batches(self.args.num_iters, shape)?;
        let latencies: Vec<f64> = batches.iter().map(|batch| batch.whole.as_secs_f64()).collect();
        let device_time = (self.assembled.meter.device_time() - device_before).as_secs_f64();
        let host_share = (device_time > 0.0).then(|| (1.0 - device_time / latencies.iter().sum::<f64>()).max(0.0));
        let mean = |of: &dyn Fn(&Elapsed) -> Duration| {
            batches.iter().map(of).sum::<Duration>().as_secs_f64() / batches.len() as f64
        };
        let after_first = mean(&|batch| batch.whole.saturating_sub(batch.first_tokens));
        Ok(json!({
            "avg_latency": latencies.iter().sum::<f64>() / latencies.len() as f64,
            "latencies": latencies,
            "percentiles": percentiles(&latencies),
            "avg_time_to_first_tokens": mean(&|batch| batch.first_tokens),
            "avg_time_per_output_token": after_first / f64::from((lengths.output - 1).max(1)),
            "avg_beside_latency": lengths.beside.map(|_| mean(&|batch| batch.beside.unwrap_or_default())),
            "host_share": host_share,
            "model_id": self.assembled.files.name,
            "device": self.assembled.device,
            "batch_size": shape.batch,
            "input_len": lengths.input,
            "output_len": lengths.output,
            "beside_len": lengths.beside,
        }))
    }

    fn batches(&mut self, count: u32, shape: BatchShape) -> Result<Vec<Elapsed>> {
        let batch = |_| {
            let (engine, hidden) = (&self.assembled.engine, ProgressBar::hidden());
            let elapsed = offline::batch(engine, shape.batch, lengths(shape), self.round, &hidden);
            self.round += 1;
            self.bar.inc(1);
            elapsed
        };
        (0..count).map(batch).collect()
    }
}

fn percentiles(latencies: &[f64]) -> Map<String, Value> {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    [10, 25, 50, 75, 90, 99]
        .map(|percent| (percent.to_string(), json!(percentile(&sorted, f64::from(percent)))))
        .into_iter()
        .collect()
}
