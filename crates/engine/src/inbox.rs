//! What the engine thread is told and what it answers: plain messages, and the bound on those that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contract::{Logprob, TokenId};
use sched::{End, NewRequest};
use tokio::sync::mpsc::UnboundedSender;

use crate::RequestError;

/// To the engine. Aborts of requests that have ended are ignored.
pub enum Message {
    Submit(Box<Submission>),
    Abort {
        request: u64,
    },
    AbortChoice {
        request: u64,
        index: u32,
    },
    /// No more requests come. Those that are here may finish until `deadline`, on the engine's clock.
    Stop {
        deadline: Duration,
    },
}

/// A request that was tokenized and checked.
pub struct Submission {
    pub request: NewRequest,
    /// Never full: a request has at most as many updates as it may have tokens.
    pub updates: UnboundedSender<Update>,
    pub ticket: Ticket,
}

/// From the engine, in order. `at` is on the engine's clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The first choice has a row.
    Started {
        at: Duration,
        cached_tokens: u32,
    },
    /// Further prompt positions: for each the token itself, then the best ones.
    Prompt(Box<[Logprob]>),
    Token {
        at: Duration,
        index: u32,
        token: TokenId,
        logprobs: Box<[Logprob]>,
        end: Option<End>,
    },
    Ended {
        at: Duration,
        index: u32,
        end: End,
    },
    /// The last one, for all choices.
    Failed(RequestError),
}

/// Bounds the requests that have not started yet.
#[derive(Clone, Debug)]
pub struct Queue {
    queued: Arc<AtomicU32>,
    max: u32,
}

/// A place in the queue; dropping it leaves.
#[derive(Debug)]
pub struct Ticket(Arc<AtomicU32>);

impl Queue {
    pub fn new(max: u32) -> Self {
        Self { queued: Arc::default(), max }
    }

    /// `None` if the queue is full.
    pub fn enter(&self) -> Option<Ticket> {
        let one_more = |queued: u32| (queued < self.max).then_some(queued + 1);
        self.queued.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Ticket(Arc::clone(&self.queued)))
    }

    pub fn len(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_has_room_again_when_somebody_leaves() {
        for max in [0, 1, 2] {
            let queue = Queue::new(max);
            let mut tickets: Vec<_> = (0..max).map(|_| queue.enter().expect("there is room")).collect();
            assert!(queue.enter().is_none(), "{max} are in");
            assert_eq!(queue.len(), max);
            if tickets.pop().is_some() {
                assert!(queue.enter().is_some());
            }
        }
    }
}
