//! Times one engine response; dropped before its end, it counts an abort.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Delta, FinishReason, Timing, Usage};

use super::Metrics;

pub(crate) struct Meter {
    metrics: Arc<Metrics>,
    /// When each choice had its last tokens.
    last_tokens: Vec<Option<Instant>>,
    ended: bool,
}

impl Meter {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, last_tokens: Vec::new(), ended: false }
    }

    pub fn delta(&mut self, delta: &Delta) {
        if !delta.tokens.is_empty() {
            self.tokens(delta.index as usize);
        }
        if let Some(finish) = &delta.finish {
            self.metrics.finished(match finish.reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
            });
        }
    }

    fn tokens(&mut self, index: usize) {
        if self.last_tokens.len() <= index {
            self.last_tokens.resize(index + 1, None);
        }
        let now = Instant::now();
        if let Some(last) = self.last_tokens[index].replace(now) {
            self.metrics.inter_token_latency.observe((now - last).as_secs_f64());
        }
    }

    pub fn failed(&mut self) {
        self.ended = true;
        self.metrics.finished("error");
    }

    pub fn ended(&mut self, usage: Usage, timing: Timing) {
        self.ended = true;
        let metrics = &self.metrics;
        metrics.request_prompt_tokens.observe(usage.prompt_tokens.into());
        metrics.request_generation_tokens.observe(usage.completion_tokens.into());
        metrics.prompt_tokens_cached.inc_by(usage.cached_tokens.into());
        if let (Some(scheduled), Some(first_token), Some(finished)) =
            (timing.scheduled, timing.first_token, timing.finished)
        {
            self.observe(scheduled, first_token, finished);
            self.observe_pace(usage, finished.saturating_sub(first_token));
        }
    }

    fn observe(&self, scheduled: Duration, first_token: Duration, finished: Duration) {
        let metrics = &self.metrics;
        metrics.queue_time.observe(scheduled.as_secs_f64());
        metrics.time_to_first_token.observe(first_token.as_secs_f64());
        metrics.e2e_latency.observe(finished.as_secs_f64());
        metrics.prefill_time.observe(first_token.saturating_sub(scheduled).as_secs_f64());
        metrics.decode_time.observe(finished.saturating_sub(first_token).as_secs_f64());
        metrics.inference_time.observe(finished.saturating_sub(scheduled).as_secs_f64());
    }

    /// Seconds per token after the first, of the choices on average.
    fn observe_pace(&self, usage: Usage, decode: Duration) {
        let choices = self.last_tokens.len().max(1) as u32;
        let later_tokens = (usage.completion_tokens / choices).saturating_sub(1);
        if later_tokens > 0 {
            self.metrics.time_per_output_token.observe(decode.as_secs_f64() / f64::from(later_tokens));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.finished("abort");
        }
    }
}
