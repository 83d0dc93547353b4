//! Recounts the scheduler's books; the simulator asks after every step.

use contract::SchedulerOutput;

use super::Scheduler;

impl Scheduler {
    /// Whether every block is free, evictable or held, with as many references as holders.
    pub fn audit(&self) -> Result<(), String> {
        self.kv.audit(self.rows.iter().map(|running| &running.tables))
    }

    /// Whether a plan just made writes only where nobody else reads.
    pub fn audit_plan(&self, plan: &SchedulerOutput) -> Result<(), String> {
        plan.work.iter().try_for_each(|work| {
            let running = self.rows.get(work.row).ok_or_else(|| format!("{:?} has no sequence", work.row))?;
            self.kv.audit_write(&running.tables, work.start, work.start + work.len)
        })
    }
}
