//! Scheduler: all sequences of one executor, and the calls that change them. How a step is planned is in `plan`, how
//! its result is applied in `update`, what happens after an executor's error in `failure`.

mod audit;
mod failure;
mod plan;
mod update;

use std::collections::VecDeque;
use std::sync::Arc;

use contract::{AdapterId, KvCapacity, RowId, SamplingParams, TokenId};

use crate::faults::{self, Fault};
use crate::kv::{Chains, KvError, KvManager, Layout};
use crate::policy::Policy;
use crate::queue::WaitingQueue;
use crate::rows::Rows;
use crate::sequence::{SequenceId, Stream, Waiting};

/// Bounds of a scheduler; the executor's capacity also holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub policy: Policy,
    /// Sequences that run at once.
    pub max_rows: u32,
    /// Tokens in one step.
    pub max_tokens: u32,
}

/// A request whose tokens, limits and parameters were checked: the prompt is not empty, and prompt and output fit
/// `Layout::max_kv_tokens`.
pub struct NewRequest {
    /// Unique, and growing in the order of arrival.
    pub request: u64,
    pub priority: i32,
    pub prompt: Vec<TokenId>,
    /// Of the prompt; extended here as the output grows.
    pub chains: Chains,
    /// Output tokens of each choice.
    pub max_tokens: u32,
    /// One per choice.
    pub sampling: Vec<Arc<SamplingParams>>,
    pub adapter: Option<AdapterId>,
}

/// What happened since the scheduler was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub preemptions: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens found there.
    pub prefix_hits: u64,
}

/// Decides what each step computes. Steps go in by `schedule` and come back, in the same order, by `update`; between
/// the two a second step may be scheduled.
pub struct Scheduler {
    limits: Limits,
    max_logit_rows: u32,
    max_len: u32,
    kv: KvManager,
    waiting: WaitingQueue,
    rows: Rows,
    /// Rows that the device still has and nobody uses.
    dropped: Vec<RowId>,
    in_flight: VecDeque<StepInFlight>,
    /// Finished records, kept for their memory.
    spare: Vec<StepInFlight>,
    epoch: u32,
    step: u64,
    stay: u64,
    counters: Counters,
    /// Blocks per pool that running sequences still need; kept for its memory.
    promised: Vec<u32>,
}

/// What we remember of a step until its result comes.
#[derive(Default)]
pub(crate) struct StepInFlight {
    step: u64,
    rows: Vec<RowInFlight>,
}

#[derive(Clone, Copy)]
struct RowInFlight {
    id: SequenceId,
    row: RowId,
    stay: u64,
    /// KV exists up to here when the step is done.
    end: u32,
    samples: bool,
    prompt_positions: u32,
    /// The step brought the row to the device.
    added: bool,
}

impl Scheduler {
    /// `epoch` is 0, or larger than that of an earlier scheduler of the same executor.
    pub fn new(capacity: &KvCapacity, limits: Limits, epoch: u32) -> Result<Self, KvError> {
        Layout::new(capacity)?;
        let limits = Limits {
            max_rows: limits.max_rows.clamp(1, capacity.max_rows),
            max_tokens: limits.max_tokens.clamp(1, capacity.max_tokens),
            ..limits
        };
        Ok(Self {
            limits,
            max_logit_rows: capacity.max_logit_rows,
            max_len: capacity.max_model_len,
            kv: KvManager::new(capacity),
            waiting: WaitingQueue::default(),
            rows: Rows::new(limits.max_rows),
            dropped: Vec::new(),
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            epoch,
            step: 0,
            stay: 0,
            counters: Counters::default(),
            promised: vec![0; capacity.pools.len()],
        })
    }

    /// Takes a request in and names its first choice; the others differ in `index`.
    ///
    /// All but the first wait for its prefill. Then they find the prompt's full blocks in the prefix cache and compute
    /// the rest themselves: each has to compute at least the last prompt token anyway, to have logits to sample from.
    pub fn add(&mut self, request: NewRequest) -> SequenceId {
        let leader = SequenceId { rank: self.limits.policy.rank(request.priority), request: request.request, index: 0 };
        let prompt_len = request.prompt.len() as u32;
        assert!(prompt_len > 0 && !request.sampling.is_empty(), "the caller refuses empty requests");
        let stream = |(index, sampling): (usize, &Arc<SamplingParams>)| Stream {
            id: SequenceId { index: index as u32, ..leader },
            tokens: request.prompt.clone(),
            prompt_len,
            max_len: prompt_len.saturating_add(request.max_tokens).min(self.max_len),
            sampling: Arc::clone(sampling),
            adapter: request.adapter,
            chains: request.chains.clone(),
            prompt_reported: 0,
            started: false,
            losses: 0,
        };
        let mut streams = request.sampling.iter().enumerate().map(stream).map(|stream| Waiting { stream });
        let first = streams.next().expect("a request has a choice");
        let followers = streams.collect();
        self.waiting.push(first);
        self.waiting.hold(leader, followers);
        leader
    }

    /// Forgets a sequence at any moment; what is in flight of it is ignored. Unknown ids are ignored too: it may just
    /// have finished.
    pub fn abort(&mut self, id: SequenceId) {
        if self.waiting.remove(id).is_none()
            && let Some(row) = self.rows.find(id)
        {
            let running = self.rows.remove(row);
            if faults::is(Fault::AbortTwice) {
                self.kv.release(running.tables.clone());
            }
            if !faults::is(Fault::AbortLeak) {
                self.kv.release(running.tables);
            }
            self.dropped.push(row);
        }
        if id.index == 0 {
            self.waiting.release(id);
        }
    }

    /// Something runs, waits or is in flight.
    pub fn has_work(&self) -> bool {
        self.num_running() + self.num_waiting() > 0 || !self.in_flight.is_empty()
    }

    pub fn num_running(&self) -> usize {
        self.rows.len()
    }

    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn steps_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// All KV blocks, and those that running sequences hold.
    pub fn kv_usage(&self) -> (u32, u32) {
        self.kv.usage()
    }
}
