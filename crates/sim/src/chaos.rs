//! When the simulated executor fails, and whom it hit.

use std::collections::BTreeMap;

use contract::ExecutorError;

use crate::rng::Rng;

/// How often the executor fails, in thousandths of its calls, and how often at the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chaos {
    pub seed: u64,
    pub refused: u32,
    pub lost: u32,
    /// Failures in all, so that every scenario ends.
    pub at_most: u32,
}

/// Draws the failures of one run.
pub(crate) struct Misfortune {
    rng: Rng,
    chaos: Chaos,
}

impl Misfortune {
    pub fn new(chaos: Chaos) -> Self {
        Self { rng: Rng::new(chaos.seed), chaos }
    }

    /// Whether this call fails.
    pub fn strike(&mut self, may_refuse: bool) -> Result<(), ExecutorError> {
        if self.chaos.at_most == 0 {
            return Ok(());
        }
        let is_refused = may_refuse && self.rng.chance(self.chaos.refused);
        let is_lost = self.rng.chance(self.chaos.lost);
        self.chaos.at_most -= u32::from(is_refused || is_lost);
        match (is_refused, is_lost) {
            (true, _) => Err(ExecutorError::Refused("the simulator says so".to_owned())),
            (_, true) => Err(ExecutorError::Lost("the simulator says so".to_owned())),
            _ => Ok(()),
        }
    }
}

/// Per sampling seed, how often its row was part of a step that failed.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub refused: BTreeMap<u64, u32>,
    pub lost: BTreeMap<u64, u32>,
}
