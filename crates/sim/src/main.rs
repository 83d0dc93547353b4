//! The simulator as a program: `sim replay SEED [DEPTH]` with a trace, or `sim seeds FILE FIRST NUM` for many seeds.
//!
//! `cargo xtask sim` and `cargo xtask check` are the ways to call it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, panic, thread};

use sim::{Failure, Options, Report};

const DEPTHS: [u32; 2] = [1, 2];
const USAGE: &str = "usage: sim replay SEED [DEPTH]\n       sim seeds FILE FIRST_FRESH NUM_FRESH";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::from(2)
        }
    }
}

/// True when every seed held.
fn run(words: &[&str]) -> Result<bool, String> {
    match words {
        ["replay", seed] => Ok(replay(number(seed)?, &DEPTHS)),
        ["replay", seed, depth] => Ok(replay(number(seed)?, &[number(depth)? as u32])),
        ["seeds", file, first, num] => {
            let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            let (first, num) = (number(first)?, number(num)?);
            let pinned = sim::pinned(&text);
            println!("{} pinned seeds, and {num} fresh ones from {first}", pinned.len());
            let seeds: Vec<u64> = pinned.into_iter().chain((0..num).map(|idx| first.wrapping_add(idx))).collect();
            Ok(check_all(&seeds))
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number\n{USAGE}"))
}

fn replay(seed: u64, depths: &[u32]) -> bool {
    let results: Vec<_> = depths.iter().map(|depth| (depth, sim::run(seed, *depth, Options { trace: true }))).collect();
    for (depth, result) in &results {
        match result {
            Ok(report) => println!("seed {seed} holds at depth {depth}: {report:?}"),
            Err(failure) => println!("{failure}"),
        }
    }
    results.iter().all(|(_, result)| result.is_ok())
}

/// Runs each seed at each depth on all cores, and says what broke and how to see it again.
fn check_all(seeds: &[u64]) -> bool {
    // A panic is a finding like any other; its message is in the failure.
    panic::set_hook(Box::new(|_| ()));
    let results = run_all(seeds);
    let mut total = Report::default();
    let mut failed = 0;
    for result in &results {
        match result {
            Ok(report) => add(&mut total, report),
            Err(failure) => {
                failed += 1;
                println!("{failure}\n  replay: cargo xtask sim {} --depth {}", failure.seed, failure.depth);
            }
        }
    }
    let Report { requests, steps, generated_tokens, preemptions, prefix_hits, losses, .. } = total;
    println!(
        "{requests} requests in {steps} steps: {generated_tokens} tokens, {preemptions} preemptions, \
         {prefix_hits} prefix hits, {losses} losses"
    );
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failed} failed", results.len() - failed);
    failed == 0
}

/// In the order of the seeds, depth 1 before depth 2.
fn run_all(seeds: &[u64]) -> Vec<Result<Report, Failure>> {
    let jobs: Vec<(u64, u32)> = seeds.iter().flat_map(|seed| DEPTHS.map(|depth| (*seed, depth))).collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Vec<_> {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|idx| *idx < jobs.len());
        std::iter::from_fn(take).map(|idx| (idx, sim::run(jobs[idx].0, jobs[idx].1, Options::default()))).collect()
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a seed's panic is caught")).collect()
    });
    results.sort_by_key(|(idx, _)| *idx);
    results.into_iter().map(|(_, result)| result).collect()
}

fn add(total: &mut Report, report: &Report) {
    total.requests += report.requests;
    total.steps += report.steps;
    total.generated_tokens += report.generated_tokens;
    total.preemptions += report.preemptions;
    total.prefix_hits += report.prefix_hits;
    total.losses += report.losses;
}
