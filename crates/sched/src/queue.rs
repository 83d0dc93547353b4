//! The sequences without a row. Knows ranks and who waits for whom, and no memory.

use std::collections::BTreeMap;

use crate::sequence::{SequenceId, Waiting};

/// Waiting sequences in rank order; choices of a request stay held until their leader's prefill is done.
#[derive(Default)]
pub(crate) struct WaitingQueue {
    ready: BTreeMap<SequenceId, Waiting>,
    held: BTreeMap<SequenceId, Vec<Waiting>>,
    num_held: usize,
}

impl WaitingQueue {
    pub fn push(&mut self, waiting: Waiting) {
        let known = self.ready.insert(waiting.stream.id, waiting);
        assert!(known.is_none(), "a sequence waits once");
    }

    /// Keeps `followers` back until `release(leader)`.
    pub fn hold(&mut self, leader: SequenceId, followers: Vec<Waiting>) {
        if !followers.is_empty() {
            self.num_held += followers.len();
            self.held.insert(leader, followers);
        }
    }

    /// The leader's prompt is in the cache, or never will be.
    pub fn release(&mut self, leader: SequenceId) {
        for follower in self.held.remove(&leader).unwrap_or_default() {
            self.num_held -= 1;
            self.push(follower);
        }
    }

    /// The sequence that starts next.
    pub fn pop_first(&mut self) -> Option<Waiting> {
        self.ready.pop_first().map(|(_, waiting)| waiting)
    }

    /// Takes a sequence out, wherever it waits.
    pub fn remove(&mut self, id: SequenceId) -> Option<Waiting> {
        self.ready.remove(&id).or_else(|| {
            let followers = self.held.get_mut(&id.leader())?;
            let idx = followers.iter().position(|waiting| waiting.stream.id == id)?;
            self.num_held -= 1;
            Some(followers.remove(idx))
        })
    }

    pub fn len(&self) -> usize {
        self.ready.len() + self.num_held
    }
}
