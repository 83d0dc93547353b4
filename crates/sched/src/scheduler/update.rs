//! Applies the result of the oldest step in flight: tokens are appended, blocks that are full and vouched for become
//! findable, sequences end.
//!
//! A row's logits depend on all KV before them. So the first finite logits after a prefill vouch for the blocks of the
//! whole prompt, and a row whose logits are not finite has never published what made them so.

use contract::{ModelRunnerOutput, Outcome, RowOut, Span, TokenId};

use super::{RowInFlight, Scheduler};
use crate::faults::{self, Fault};
use crate::progress::{End, Progress, Why};
use crate::sequence::Running;

impl Scheduler {
    /// # Panics
    /// If `out` is not the result of the oldest step in flight: the executor broke its contract.
    pub fn update(&mut self, out: &ModelRunnerOutput, progress: &mut Vec<Progress>) {
        let mut step = self.in_flight.pop_front().expect("a result belongs to a step in flight");
        assert_eq!((out.epoch, out.step), (self.epoch, step.step), "results come in the order of the steps");
        let mut results = out.rows.iter();
        for work in step.rows.drain(..) {
            if work.samples || work.prompt_positions > 0 {
                let result = results.next().expect("every row that wants something has a result");
                assert_eq!(result.row, work.row, "results come in the plan's order");
                self.apply(work, result, out, progress);
            }
        }
        self.spare.push(step);
    }

    fn apply(&mut self, work: RowInFlight, result: &RowOut, out: &ModelRunnerOutput, progress: &mut Vec<Progress>) {
        let is_current = |running: &&mut Running| running.stay == work.stay || faults::is(Fault::StaleResult);
        let Some(running) = self.rows.get_mut(work.row).filter(is_current) else { return };
        running.pending -= u32::from(work.samples);
        if result.outcome == Outcome::NonFinite {
            if faults::is(Fault::PublishNonFinite) {
                self.kv.publish(&mut running.tables, &running.stream.chains, work.end.min(running.stream.len()));
            }
            progress.push(Progress::Failed { id: work.id, why: Why::NonFinite });
            return self.finish(work);
        }
        let logprobs = report_prompt(running, work, result.logprobs, progress);
        let end =
            if work.samples { grow(running, &out.tokens[result.tokens.range()], logprobs, progress) } else { None };
        let stream = &mut running.stream;
        stream.chains.extend(&stream.tokens);
        self.kv.publish(&mut running.tables, &stream.chains, work.end);
        if end.is_some() {
            self.finish(work);
        } else if work.samples && work.id.index == 0 {
            self.waiting.release(work.id);
        }
    }

    /// A sequence that is complete, or failed on its own, leaves its row.
    fn finish(&mut self, work: RowInFlight) {
        self.kv.release(self.rows.remove(work.row).tables);
        if !faults::is(Fault::ForgetDrop) {
            self.dropped.push(work.row);
        }
        if work.id.index == 0 {
            self.waiting.release(work.id);
        }
    }
}

/// Reports the prompt's part of a row's log probabilities and returns the rest.
fn report_prompt(running: &mut Running, work: RowInFlight, logprobs: Span, progress: &mut Vec<Progress>) -> Span {
    if work.prompt_positions == 0 {
        return logprobs;
    }
    let per_position = 1 + running.stream.sampling.prompt_logprobs.unwrap_or(0);
    let len = work.prompt_positions * per_position;
    assert!(len <= logprobs.len, "every prompt position that was asked for has its log probabilities");
    running.stream.prompt_reported += work.prompt_positions;
    progress.push(Progress::Prompt { id: work.id, logprobs: Span { start: logprobs.start, len } });
    Span { start: logprobs.start + len, len: logprobs.len - len }
}

/// Appends the sampled token, unless the sequence has no room for any, and says whether that was the last one.
fn grow(running: &mut Running, sampled: &[TokenId], logprobs: Span, progress: &mut Vec<Progress>) -> Option<End> {
    let stream = &mut running.stream;
    let id = stream.id;
    if stream.len() >= stream.max_len {
        progress.push(Progress::Ended { id, end: End::Length });
        return Some(End::Length);
    }
    let &[token] = sampled else { panic!("a row without drafts samples one token, not {}", sampled.len()) };
    let may_stop = stream.output_len() >= stream.sampling.min_tokens && !faults::is(Fault::IgnoreStop);
    stream.tokens.push(token);
    let end = if may_stop && stream.sampling.stop_token_ids.contains(&token) {
        Some(End::Stop)
    } else {
        (stream.len() >= stream.max_len).then_some(End::Length)
    };
    progress.push(Progress::Token { id, token, logprobs, end });
    end
}
