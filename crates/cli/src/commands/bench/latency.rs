//! `tokenmill bench latency`: one batch from its prompts to its last token.

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use loadgen::{Machine, percentile};
use serde_json::{Map, Value, json};

use super::offline::{self, Elapsed, Lengths};
use crate::args::{BatchShape, BenchLatencyArgs};
use crate::assemble::Assembled;

/// Prints vLLM's keys; times are in seconds. A sweep is a list of points.
pub(super) fn run(args: &BenchLatencyArgs) -> Result<()> {
    let shapes = shapes(args);
    let largest = shapes.iter().map(|shape| shape.batch).max().unwrap_or(0);
    let longest = shapes.iter().copied().max_by_key(|shape| shape.input.saturating_add(shape.output));
    let longest = longest.map_or(Lengths { input: 0, output: 0 }, lengths);
    let assembled = offline::start(&args.model, largest, longest)?;
    let before = Machine::load_average();
    let bar = super::bar(shapes.len() * (args.num_iters_warmup + args.num_iters) as usize, "batches".to_owned());
    let points: Vec<Value> = shapes.iter().map(|shape| point(&assembled, args, *shape, &bar)).collect::<Result<_>>()?;
    bar.finish_and_clear();
    assembled.engine.shutdown(Duration::ZERO);
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
    let of_length =
        |&input| args.batch_size.iter().map(move |&batch| BatchShape { batch, input, output: args.output_len });
    args.input_len.iter().flat_map(of_length).collect()
}

fn lengths(shape: BatchShape) -> Lengths {
    Lengths { input: shape.input, output: shape.output }
}

/// One shape, after its warm-up. `bar` counts all batches, and none repeats another's prompts.
fn point(assembled: &Assembled, args: &BenchLatencyArgs, shape: BatchShape, bar: &ProgressBar) -> Result<Value> {
    let lengths = lengths(shape);
    let batch = || {
        let elapsed =
            offline::batch(&assembled.engine, shape.batch, lengths, bar.position() as u32, &ProgressBar::hidden());
        bar.inc(1);
        elapsed
    };
    for _ in 0..args.num_iters_warmup {
        batch()?;
    }
    let device_before = assembled.meter.device_time();
    let batches: Vec<Elapsed> = (0..args.num_iters).map(|_| batch()).collect::<Result<_>>()?;
    let latencies: Vec<f64> = batches.iter().map(|batch| batch.whole.as_secs_f64()).collect();
    let device_time = (assembled.meter.device_time() - device_before).as_secs_f64();
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
        "host_share": host_share,
        "model_id": assembled.files.name,
        "device": assembled.device,
        "batch_size": shape.batch,
        "input_len": lengths.input,
        "output_len": lengths.output,
    }))
}

fn percentiles(latencies: &[f64]) -> Map<String, Value> {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    [10, 25, 50, 75, 90, 99]
        .map(|percent| (percent.to_string(), json!(percentile(&sorted, f64::from(percent)))))
        .into_iter()
        .collect()
}
