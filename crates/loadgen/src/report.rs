//! What a run amounts to, under the names that vLLM's `bench serve` gives, with all that is needed to doubt it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{Arrival, Beside, Goodput, LoadAverage, Machine, Program, Recording, Run, Summary};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What was measured, as tables call it.
    pub label: String,
    pub model: String,
    /// `random`, `prefix_repetition` or `sharegpt:FILE`.
    pub dataset: String,
    /// What says how long prompts are, by its name.
    pub lengths: Vec<(&'static str, usize)>,
    /// Words in the prompts that are sent beside.
    pub beside_len: Option<usize>,
    /// Recorded conversations that are too long for the server.
    pub dropped: Option<usize>,
    /// What else a reader must know.
    pub notes: Vec<String>,
    /// `None` where each answer has a length of its own.
    pub output_len: Option<u32>,
    pub arrival: Arrival,
    pub goodput: Option<Goodput>,
    pub seed: u64,
    /// Requests that were sent before and are in no number.
    pub warmup: usize,
    pub date: String,
    pub machine: Machine,
    pub program: Program,
    pub load_average_before: Option<LoadAverage>,
    pub load_average_after: Option<LoadAverage>,
}

/// One measurement. Times are in milliseconds, rates per second.
#[derive(Clone, Debug)]
pub struct Report {
    pub setup: Setup,
    pub duration: Duration,
    pub num_prompts: usize,
    pub completed: usize,
    pub total_input_tokens: u64,
    pub total_output_tokens: u64,
    /// Tokens of prompts that the server took from its cache, as far as it says so.
    pub cached_input_tokens: u64,
    /// Events with text; fewer than tokens where the server sends several at once.
    pub total_chunks: u64,
    /// Answers whose tokens the server counted itself.
    pub counted_by_server: usize,
    /// Completed requests within the goodput limits.
    pub good: Option<usize>,
    /// Shortest and longest answer, in tokens.
    pub output_lens: Option<(u64, u64)>,
    /// Completed requests whose answer is not as long as asked.
    pub wrong_lengths: usize,
    /// Why requests failed, and how many for that reason.
    pub errors: BTreeMap<String, usize>,
    pub ttft: Option<Summary>,
    pub tpot: Option<Summary>,
    pub itl: Option<Summary>,
    pub e2el: Option<Summary>,
    pub beside: Option<Beside>,
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Report {
    pub fn new(setup: Setup, run: &Run) -> Self {
        let good: Vec<(&Recording, u32)> = run
            .outcomes
            .iter()
            .filter_map(|outcome| Some((outcome.result.as_ref().ok()?, outcome.output_len)))
            .collect();
        let recordings = || good.iter().map(|(recording, _)| *recording);
        let total = |count: fn(&Recording) -> u64| recordings().map(count).sum();
        let summary =
            |value: fn(&Recording) -> Option<Duration>| Summary::of(recordings().filter_map(value).map(ms).collect());
        let mut errors = BTreeMap::new();
        for failure in run.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()) {
            *errors.entry(failure.to_string()).or_default() += 1;
        }
        let streams: Vec<&Recording> = recordings().collect();
        let beside = setup.beside_len.map(|len| Beside::new(len, &streams, &run.beside));
        let lens = || recordings().map(Recording::output_tokens);
        Self {
            duration: run.duration,
            num_prompts: run.outcomes.len(),
            completed: good.len(),
            total_input_tokens: total(Recording::input_tokens),
            total_output_tokens: total(Recording::output_tokens),
            cached_input_tokens: total(Recording::cached_tokens),
            total_chunks: total(Recording::num_chunks),
            counted_by_server: recordings().filter(|recording| recording.has_usage()).count(),
            good: setup.goodput.map(|goodput| recordings().filter(|recording| goodput.is_met(recording)).count()),
            output_lens: lens().min().zip(lens().max()),
            wrong_lengths: good.iter().filter(|(recording, len)| recording.output_tokens() != u64::from(*len)).count(),
            errors,
            ttft: summary(|recording| Some(recording.ttft())),
            tpot: summary(Recording::tpot),
            itl: Summary::of(recordings().flat_map(Recording::gaps).copied().map(ms).collect()),
            e2el: summary(|recording| Some(recording.e2el())),
            beside,
            setup,
        }
    }

    pub(crate) fn per_second(&self, count: u64) -> f64 {
        let seconds = self.duration.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    pub fn request_throughput(&self) -> f64 {
        self.per_second(self.completed as u64)
    }

    pub fn output_throughput(&self) -> f64 {
        self.per_second(self.total_output_tokens)
    }

    /// Tokens a second that one user sees once the answer has begun.
    pub fn interactivity(&self) -> Option<f64> {
        self.tpot.map(|tpot| tpot.median()).filter(|tpot| *tpot > 0.0).map(|tpot| 1e3 / tpot)
    }

    /// What a reader must know before believing the numbers, loudest first.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let failed: usize = self.errors.values().sum();
        if failed > 0 {
            warnings.push(format!("{failed} of {} requests failed; the numbers are of the others", self.num_prompts));
            warnings.extend(self.errors.iter().map(|(error, count)| format!("  {count} times: {error}")));
        }
        if let (1.., Some((min, max))) = (self.wrong_lengths, self.output_lens) {
            let wrong = self.wrong_lengths;
            warnings.push(format!(
                "NOT EQUAL: {wrong} of {} answers are not as long as asked (found {min} to {max} tokens); do not compare \
                 this with a server that kept the length",
                self.completed
            ));
        }
        if self.counted_by_server < self.completed {
            warnings.push("the server counts no tokens; pieces of the stream stand for output tokens".to_owned());
        }
        if self.cached_input_tokens > 0 {
            let (cached, total) = (self.cached_input_tokens, self.total_input_tokens);
            warnings.push(format!("{cached} of {total} prompt tokens came from the server's cache"));
        }
        let cores = self.setup.machine.cores as f64;
        if let Some([load, ..]) = self.setup.load_average_before.filter(|load| load[0] > cores / 4.0) {
            warnings.push(format!("the machine was busy before: load average {load:.1} on {cores} cores"));
        }
        warnings.extend(self.setup.notes.iter().cloned());
        warnings
    }

    /// With vLLM's keys first; `null` where there is nothing to say.
    pub fn to_json(&self) -> Value {
        let Setup { arrival, program, machine, .. } = &self.setup;
        let mut report = Map::new();
        let mut put = |key: &str, value: Value| report.insert(key.to_owned(), value);
        put("date", json!(self.setup.date));
        put("backend", json!(self.setup.label));
        put("model_id", json!(self.setup.model));
        put("num_prompts", json!(self.num_prompts));
        put("request_rate", arrival.request_rate.map_or(json!("inf"), |rate| json!(rate)));
        put("max_concurrency", json!(arrival.max_concurrency));
        put("duration", json!(self.duration.as_secs_f64()));
        put("completed", json!(self.completed));
        put("failed", json!(self.num_prompts - self.completed));
        put("total_input_tokens", json!(self.total_input_tokens));
        put("total_output_tokens", json!(self.total_output_tokens));
        put("request_throughput", json!(self.request_throughput()));
        put("request_goodput", json!(self.good.map(|good| self.per_second(good as u64))));
        put("output_throughput", json!(self.output_throughput()));
        put("total_token_throughput", json!(self.per_second(self.total_input_tokens + self.total_output_tokens)));
        for (name, summary) in [("ttft", self.ttft), ("tpot", self.tpot), ("itl", self.itl), ("e2el", self.e2el)] {
            let mut put =
                |kind: &str, value: fn(Summary) -> f64| put(&format!("{kind}_{name}_ms"), json!(summary.map(value)));
            put("mean", |summary| summary.mean);
            put("median", |summary| summary.median());
            put("std", |summary| summary.std);
            put("p50", |summary| summary.p50);
            put("p90", |summary| summary.p90);
            put("p99", |summary| summary.p99);
            put("max", |summary| summary.max);
        }
        put("dataset", json!(self.setup.dataset));
        for (name, len) in &self.setup.lengths {
            put(name, json!(len));
        }
        put("output_len", json!(self.setup.output_len));
        put("output_lens_found", json!(self.output_lens));
        put("wrong_lengths", json!(self.wrong_lengths));
        put("cached_input_tokens", json!(self.cached_input_tokens));
        put("total_chunks", json!(self.total_chunks));
        put("seed", json!(self.setup.seed));
        put("dropped", json!(self.setup.dropped));
        put("beside", json!(self.beside.as_ref().map(Beside::to_json)));
        put("warmup", json!(self.setup.warmup));
        put("errors", json!(self.errors));
        put("warnings", json!(self.warnings()));
        put("machine", json!(machine));
        put("load_average_before", json!(self.setup.load_average_before));
        put("load_average_after", json!(self.setup.load_average_after));
        put("version", json!(program.version));
        put("commit", json!(program.commit));
        put("built", json!(program.built));
        put("command", json!(program.command));
        Value::Object(report)
    }
}
