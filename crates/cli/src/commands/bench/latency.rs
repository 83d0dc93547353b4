//! `tokenmill bench latency`: one batch from its prompts to its last token.

use std::time::Duration;

use anyhow::Result;
use loadgen::{Machine, percentile};
use serde_json::{Map, Value, json};

use super::offline::{self, Elapsed, Lengths};
use crate::args::BenchLatencyArgs;
use crate::assemble::Assembled;

/// Prints vLLM's keys; times are in seconds. A sweep is a list of points.
pub(super) fn run(args: &BenchLatencyArgs) -> Result<()> {
    let longest = args.input_len.iter().copied().max().unwrap_or(0);
    let largest = args.batch_size.iter().copied().max().unwrap_or(0);
    let lengths = Lengths { input: longest, output: args.output_len };
    let assembled = offline::start(&args.model, largest, lengths)?;
    let before = Machine::load_average();
    let mut rounds = 0;
    let mut points = Vec::new();
    for &input in &args.input_len {
        for &batch_size in &args.batch_size {
            let lengths = Lengths { input, ..lengths };
            points.push(point(&assembled, args, batch_size, lengths, &mut rounds)?);
        }
    }
    assembled.engine.shutdown(Duration::ZERO);
    let result = if points.len() == 1 { points.remove(0) } else { json!({ "points": points }) };
    super::finish(result, before, args.save_json.as_deref())
}

/// One batch size and length, after its warm-up. `rounds` counts all batches, since none repeats another's prompts.
fn point(
    assembled: &Assembled,
    args: &BenchLatencyArgs,
    batch_size: u32,
    lengths: Lengths,
    rounds: &mut u32,
) -> Result<Value> {
    let mut batch = || {
        *rounds += 1;
        offline::batch(&assembled.engine, batch_size, lengths, *rounds - 1)
    };
    for _ in 0..args.num_iters_warmup {
        batch()?;
    }
    let batches: Vec<Elapsed> = (0..args.num_iters).map(|_| batch()).collect::<Result<_>>()?;
    let latencies: Vec<f64> = batches.iter().map(|batch| batch.whole.as_secs_f64()).collect();
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
        "model_id": assembled.files.name,
        "device": assembled.device,
        "batch_size": batch_size,
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
