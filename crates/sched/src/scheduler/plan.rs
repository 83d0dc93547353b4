//! Plans one step.
//!
//! Running sequences go first, by rank; then waiting ones, by rank, as long as tokens, rows and blocks last. A running
//! sequence that finds no block takes the blocks of the one with the worst rank, which may be itself; sequences of
//! better rank are never touched, so the best one always moves on. A waiting sequence starts only if all its known
//! tokens fit beside what the running ones still need for theirs.
//!
//! A row is scheduled again before its sampled token is known: the device feeds the token back by itself. If it turns
//! out to be the last one, the overshoot is ignored.

use std::sync::Arc;

use contract::{AddRow, GroupId, RowId, RowWork, SchedulerOutput, Span, Want};

use super::{RowInFlight, Scheduler, StepInFlight};
use crate::budget::{Left, StepBudget};
use crate::faults::{self, Fault};
use crate::progress::Progress;
use crate::sequence::{Running, Waiting};

/// A row's share of a step, decided and not yet done.
#[derive(Clone, Copy)]
struct Share {
    len: u32,
    samples: bool,
    prompt_positions: u32,
}

impl Scheduler {
    /// Fills `plan` with the next step and reports who started. `false`: there is nothing to compute now, and `plan`
    /// must not be submitted.
    pub fn schedule(&mut self, budget: &StepBudget, plan: &mut SchedulerOutput, progress: &mut Vec<Progress>) -> bool {
        plan.clear();
        plan.epoch = self.epoch;
        plan.step = self.step;
        let mut step = self.spare.pop().unwrap_or_default();
        step.step = self.step;
        let decodes = self.rows.iter().filter(|running| running.remaining() == 1).map(|running| running.computed);
        let mut left = Left::new(budget, self.limits.max_tokens, self.max_logit_rows, decodes);
        if self.continue_running(&mut left, plan, &mut step) {
            self.start_waiting(&mut left, plan, &mut step, progress);
        }
        if step.rows.is_empty() {
            self.spare.push(step);
            return false;
        }
        plan.drop.append(&mut self.dropped);
        self.step += 1;
        self.in_flight.push_back(step);
        true
    }

    /// `false` if somebody was preempted: there is no memory for newcomers.
    fn continue_running(&mut self, left: &mut Left, plan: &mut SchedulerOutput, step: &mut StepInFlight) -> bool {
        let preemptions = self.counters.preemptions;
        let mut rank = 0;
        while let Some(row) = self.rows.ranked(rank) {
            let running = self.rows.get_mut(row).expect("a ranked row is taken");
            if let Some(share) = share(running, left) {
                let end = running.computed + share.len;
                let Some(new_blocks) = self.grow(rank, end, plan) else { break };
                let running = self.rows.get_mut(row).expect("growing spares the row that grows");
                take(left, running.computed, share);
                step.rows.push(emit(running, share, new_blocks, false, plan));
                self.publish_early(row);
            }
            rank += 1;
        }
        self.counters.preemptions == preemptions
    }

    /// Gives the sequence at `rank` blocks up to `end`, if need be those of worse ranks. `None`: it had the worst rank
    /// itself and was preempted.
    fn grow(&mut self, rank: usize, end: u32, plan: &mut SchedulerOutput) -> Option<Span> {
        let row = self.rows.ranked(rank)?;
        loop {
            let running = self.rows.get_mut(row).expect("a ranked row is taken");
            if let Some(new_blocks) = self.kv.grow(&mut running.tables, end, &mut plan.blocks) {
                return Some(new_blocks);
            }
            let worst = self.rows.ranked(self.rows.len() - 1).expect("at least one is running");
            self.preempt(worst);
            if worst == row {
                return None;
            }
        }
    }

    fn preempt(&mut self, row: RowId) {
        let (waiting, tables) = self.rows.remove(row).preempt();
        self.kv.release(tables);
        self.dropped.push(row);
        self.waiting.push(waiting);
        self.counters.preemptions += 1;
    }

    fn start_waiting(
        &mut self,
        left: &mut Left,
        plan: &mut SchedulerOutput,
        step: &mut StepInFlight,
        progress: &mut Vec<Progress>,
    ) {
        self.promised.fill(0);
        for running in self.rows.iter() {
            self.kv.promise(&running.tables, running.target(), &mut self.promised);
        }
        while left.tokens() > 0 && self.rows.vacancy().is_some() {
            let Some(waiting) = self.waiting.pop_first() else { break };
            let mut running = self.take_row(waiting);
            let fits = self.kv.can_grow(&running.tables, running.stream.len(), &self.promised);
            let Some(share) = share(&running, left).filter(|_| fits) else {
                let (waiting, tables) = running.preempt();
                self.kv.release(tables);
                self.waiting.push(waiting);
                break;
            };
            self.count_start(&mut running, progress);
            add(&running, plan);
            let end = running.computed + share.len;
            let new_blocks = self.kv.grow(&mut running.tables, end, &mut plan.blocks).expect("the pools were asked");
            take(left, running.computed, share);
            step.rows.push(emit(&mut running, share, new_blocks, true, plan));
            self.kv.promise(&running.tables, running.target(), &mut self.promised);
            let row = running.row;
            self.rows.insert(running);
            self.publish_early(row);
        }
    }

    /// A sequence on the row that is vacant, with the prefix that is known of it. At least one token is left to
    /// compute, because the next one is sampled from its logits.
    fn take_row(&mut self, mut waiting: Waiting) -> Running {
        let row = self.rows.vacancy().expect("the caller has seen a vacancy");
        let stream = &mut waiting.stream;
        stream.chains.extend(&stream.tokens);
        let unread = u32::from(!faults::is(Fault::ReadWholePrompt));
        let readable = if stream.wants_prompt() { 0 } else { stream.len() - unread };
        let (mut tables, mut computed) = self.kv.take_prefix(&stream.chains, readable);
        // No step shall take memory as a sequence grows.
        stream.reserve();
        self.kv.reserve(&mut tables, stream.max_len);
        if faults::is(Fault::KeepComputed) && stream.started {
            computed = stream.len() - 1;
        }
        self.stay += 1;
        waiting.start(row, self.stay, tables, computed)
    }

    fn count_start(&mut self, running: &mut Running, progress: &mut Vec<Progress>) {
        let stream = &mut running.stream;
        if std::mem::replace(&mut stream.started, true) {
            return;
        }
        if stream.id.index == 0 {
            self.counters.prefix_queries += u64::from(stream.prompt_len);
            self.counters.prefix_hits += u64::from(running.computed);
        }
        progress.push(Progress::Started { id: stream.id, cached: running.computed });
    }

    fn publish_early(&mut self, row: RowId) {
        if faults::is(Fault::EarlyPublish)
            && let Some(running) = self.rows.get_mut(row)
        {
            let known = running.computed.min(running.stream.len());
            running.stream.chains.extend(&running.stream.tokens);
            self.kv.publish(&mut running.tables, &running.stream.chains, known);
        }
    }
}

/// What the budget lets a row compute; `None` if that is nothing.
fn share(running: &Running, left: &Left) -> Option<Share> {
    match running.remaining() {
        0 => None,
        1 => left.decode_fits().then_some(Share { len: 1, samples: true, prompt_positions: 0 }),
        remaining => prefill_share(running, remaining, left),
    }
}

/// A chunk either repeats prompt positions that were reported (after a preemption) or reports new ones, never both; a
/// reported position takes a row of logits, and so does the position that is sampled from.
fn prefill_share(running: &Running, remaining: u32, left: &Left) -> Option<Share> {
    let stream = &running.stream;
    let start = running.computed;
    let mut len = left.prefill_len(start, remaining);
    let mut prompt_positions = 0;
    if stream.wants_prompt() && start < stream.prompt_reported {
        len = len.min(stream.prompt_reported - start);
    } else if start < stream.prompt_positions() && stream.wants_prompt() {
        len = len.min(left.logit_rows());
        prompt_positions = len.min(stream.prompt_positions() - start);
    } else if len == remaining && left.logit_rows() == 0 {
        len -= 1;
    }
    (len > 0).then_some(Share { len, samples: len == remaining, prompt_positions })
}

/// A single last token is a decode, wherever it comes from.
fn take(left: &mut Left, start: u32, share: Share) {
    if share.len == 1 && share.samples && share.prompt_positions == 0 {
        left.take_decode();
    } else {
        left.take_prefill(start, share.len, share.prompt_positions + u32::from(share.samples));
    }
}

/// Tells the device about a row that it does not have.
fn add(running: &Running, plan: &mut SchedulerOutput) {
    let stream = &running.stream;
    let groups = running.tables.groups().enumerate();
    let known = groups.flat_map(|(group, blocks)| blocks.iter().map(move |&block| (GroupId(group as u32), block)));
    plan.add.push(AddRow {
        row: running.row,
        tokens: Span::push(&mut plan.tokens, stream.tokens.iter().copied()),
        prompt_len: stream.prompt_len,
        computed: running.computed,
        blocks: Span::push(&mut plan.blocks, known),
        sampling: Arc::clone(&stream.sampling),
        adapter: stream.adapter,
    });
}

/// Writes a share into the plan and moves the row on, as if the step were done.
fn emit(running: &mut Running, share: Share, new_blocks: Span, added: bool, plan: &mut SchedulerOutput) -> RowInFlight {
    plan.work.push(RowWork {
        row: running.row,
        start: running.computed,
        len: share.len,
        forced: Span::default(),
        drafts: Span::default(),
        new_blocks,
        want: Want { sample: share.samples, prompt_logprobs: share.prompt_positions > 0, ..Want::default() },
    });
    running.computed += share.len;
    running.pending += u32::from(share.samples);
    RowInFlight {
        id: running.stream.id,
        row: running.row,
        stay: running.stay,
        end: running.computed,
        samples: share.samples,
        prompt_positions: share.prompt_positions,
        added,
    }
}
