//! What is left of the plan when the executor fails.

use std::collections::BTreeSet;

use contract::SchedulerOutput;

use super::{Scheduler, StepInFlight};
use crate::faults::{self, Fault};
use crate::progress::{Progress, Why};

/// A sequence that was part of this many steps in which the executor lost its state is failed instead of replayed: it
/// may be what kills the executor.
const MAX_LOSSES: u32 = 3;

impl Scheduler {
    /// The step scheduled last was refused before it changed anything: its sequences fail, and what it would have
    /// dropped is still there.
    pub fn refused(&mut self, plan: &SchedulerOutput, progress: &mut Vec<Progress>) {
        let step = self.in_flight.pop_back().expect("the refused step was scheduled");
        assert_eq!(step.step, plan.step, "the step scheduled last is refused");
        self.fail(step, true, progress);
        self.dropped.extend_from_slice(&plan.drop);
    }

    /// The oldest step in flight was submitted and has no result: its sequences fail.
    pub fn failed(&mut self, progress: &mut Vec<Progress>) {
        let step = self.in_flight.pop_front().expect("the failed step is in flight");
        self.fail(step, false, progress);
    }

    fn fail(&mut self, mut step: StepInFlight, undone: bool, progress: &mut Vec<Progress>) {
        for work in step.rows.drain(..) {
            if self.rows.get(work.row).is_none_or(|running| running.stay != work.stay) {
                continue;
            }
            self.kv.release(self.rows.remove(work.row).tables);
            if !(undone && work.added) {
                self.dropped.push(work.row);
            }
            if work.id.index == 0 {
                self.waiting.release(work.id);
            }
            progress.push(Progress::Failed { id: work.id, why: Why::Refused });
        }
        self.spare.push(step);
    }

    /// The executor lost all rows and KV. Everything that ran waits again, in a new epoch; the caller restarts the
    /// executor with it.
    pub fn lost(&mut self, progress: &mut Vec<Progress>) {
        self.epoch += 1;
        let suspects: BTreeSet<u64> =
            self.in_flight.drain(..).flat_map(|step| step.rows).map(|work| work.stay).collect();
        while let Some(row) = self.rows.ranked(0) {
            let mut running = self.rows.remove(row);
            running.stream.losses += u32::from(suspects.contains(&running.stay));
            let (waiting, tables) = running.preempt();
            self.kv.release(tables);
            if waiting.stream.losses < MAX_LOSSES {
                self.waiting.push(waiting);
            } else {
                let id = waiting.stream.id;
                progress.push(Progress::Failed { id, why: Why::Lost });
                if id.index == 0 {
                    self.waiting.release(id);
                }
            }
        }
        self.dropped.clear();
        if !faults::is(Fault::KeepPrefixAfterLoss) {
            self.kv.forget_all();
        }
    }
}
