//! Recounts the scheduler's books; the simulator asks after every step.

use super::Scheduler;

impl Scheduler {
    /// Whether every block is free, evictable or held, with as many references as holders.
    pub fn audit(&self) -> Result<(), String> {
        self.kv.audit(self.rows.iter().map(|running| &running.tables))
    }
}
