//! `tokenmill bench throughput`: many requests at once, and how long until the last of them ends.

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use loadgen::Machine;
use serde_json::json;

use super::offline::{self, Lengths};
use crate::args::BenchThroughputArgs;

/// Prints vLLM's keys and what it leaves out: how many of the tokens were output.
pub(super) fn run(args: &BenchThroughputArgs) -> Result<()> {
    let lengths = Lengths { input: args.input_len, output: args.output_len, beside: None };
    let assembled = offline::start(&args.model, args.num_prompts, lengths)?;
    // Touches the code and the memory that the measured batch uses.
    offline::batch(
        &assembled.engine,
        args.num_prompts.min(args.model.max_num_seqs),
        Lengths { output: 1, ..lengths },
        0,
        &ProgressBar::hidden(),
    )?;
    let bar = super::bar(args.num_prompts as usize, "requests".to_owned());
    let before = Machine::load_average();
    let elapsed = offline::batch(&assembled.engine, args.num_prompts, lengths, 1, &bar)?.whole.as_secs_f64();
    bar.finish_and_clear();
    let requests = u64::from(args.num_prompts);
    let (total, output) =
        (requests * u64::from(args.input_len + args.output_len), requests * u64::from(args.output_len));
    assembled.engine.shutdown(Duration::ZERO);
    let result = json!({
        "elapsed_time": elapsed,
        "num_requests": requests,
        "total_num_tokens": total,
        "requests_per_second": requests as f64 / elapsed,
        "tokens_per_second": total as f64 / elapsed,
        "output_tokens_per_second": output as f64 / elapsed,
        "model_id": assembled.files.name,
        "device": assembled.device,
        "input_len": args.input_len,
        "output_len": args.output_len,
    });
    super::finish(result, before, args.save_json.as_deref())
}
