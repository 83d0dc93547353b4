//! `tokenmill bench latency`: one batch from its prompts to its last token.

use std::time::Duration;

use anyhow::Result;
use loadgen::{Machine, percentile};
use serde_json::{Map, Value, json};

use super::offline::{self, Lengths};
use crate::args::BenchLatencyArgs;

/// Prints vLLM's keys; times are in seconds.
pub(super) fn run(args: &BenchLatencyArgs) -> Result<()> {
    let lengths = Lengths { input: args.input_len, output: args.output_len };
    let assembled = offline::start(&args.model, args.batch_size, lengths)?;
    let batch = |round| offline::batch(&assembled.engine, args.batch_size, lengths, round);
    for round in 0..args.num_iters_warmup {
        batch(round)?;
    }
    let before = Machine::load_average();
    let rounds = args.num_iters_warmup..args.num_iters_warmup + args.num_iters;
    let latencies: Vec<f64> = rounds.map(|round| Ok(batch(round)?.as_secs_f64())).collect::<Result<_>>()?;
    assembled.engine.shutdown(Duration::ZERO);
    let result = json!({
        "avg_latency": latencies.iter().sum::<f64>() / latencies.len() as f64,
        "latencies": latencies,
        "percentiles": percentiles(&latencies),
        "model_id": assembled.files.name,
        "device": assembled.device,
        "batch_size": args.batch_size,
        "input_len": args.input_len,
        "output_len": args.output_len,
    });
    super::finish(result, before, args.save_json.as_deref())
}

fn percentiles(latencies: &[f64]) -> Map<String, Value> {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    [10, 25, 50, 75, 90, 99]
        .map(|percent| (percent.to_string(), json!(percentile(&sorted, f64::from(percent)))))
        .into_iter()
        .collect()
}
