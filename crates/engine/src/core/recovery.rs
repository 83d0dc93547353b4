//! What the engine does when the executor, or the engine itself, has failed.

use contract::{Control, ExecutorError};
use sched::{Scheduler, Why};

use super::{EngineCore, Fatal, limits};

/// Losses without a single finished step between them that are taken for the end.
const MAX_LOSSES_IN_A_ROW: u32 = 8;

/// What clients are told.
pub(super) fn sentence(why: Why) -> &'static str {
    match why {
        Why::NonFinite => "The model's output for this request was not a finite number.",
        Why::Refused => "The device refused a step that this request was part of.",
        Why::Lost => "The device failed repeatedly while it worked on this request.",
    }
}

impl EngineCore {
    /// Starts a new epoch: all that ran is replayed.
    pub(super) fn recover(&mut self, error: ExecutorError) -> Result<(), Fatal> {
        tracing::error!(%error, epoch = self.scheduler.epoch(), "replaying all running sequences");
        self.scheduler.lost(&mut self.progress);
        self.restart(&error.to_string())
    }

    /// After a panic nothing in the scheduler can be trusted: every request fails, and an empty one takes its place.
    pub fn rebuild(&mut self, reason: &str) -> Result<(), Fatal> {
        tracing::error!(reason, "a step panicked; every open request fails");
        self.progress.clear();
        while let Some(account) = self.ledger.take_first() {
            self.stats.requests_failed += 1;
            account.fail(crate::RequestError { message: "An internal error ended this request.".to_owned() });
        }
        let epoch = self.scheduler.epoch() + 1;
        self.scheduler = Scheduler::new(self.executor.capacity(), limits(&self.config), epoch)
            .map_err(|error| Fatal(error.to_string()))?;
        self.restart(reason)?;
        self.update_stats();
        Ok(())
    }

    fn restart(&mut self, reason: &str) -> Result<(), Fatal> {
        self.loads.clear();
        self.stats.executor_losses += 1;
        self.losses_in_a_row += 1;
        if self.losses_in_a_row > MAX_LOSSES_IN_A_ROW {
            return Err(Fatal(format!("The device failed {} times in a row: {reason}", self.losses_in_a_row)));
        }
        let epoch = self.scheduler.epoch();
        self.executor
            .control(&Control::Restart { epoch })
            .map_err(|error| Fatal(format!("The device could not be restarted: {error}")))
    }
}
