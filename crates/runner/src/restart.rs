//! An executor that is built anew when its device is lost: context, kernels, weights and caches from the checkpoint.
//!
//! Knows nothing of what it builds. The engine replays the rows; a device that is lost again and again is given up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use contract::{Control, Executor, ExecutorError, KvCapacity, Masks, ModelRunnerOutput, SchedulerOutput};

/// Losses within this time that are answered with a new executor; one more is the end.
const MAX_RESTARTS: usize = 3;
const WITHIN: Duration = Duration::from_secs(600);

/// Makes another executor of the same capacity.
pub type Build = Box<dyn FnMut() -> Result<Box<dyn Executor>, String>>;

/// An executor and the way to another one.
pub struct Restarting {
    /// `None` after a build that failed.
    executor: Option<Box<dyn Executor>>,
    build: Build,
    capacity: KvCapacity,
    is_lost: bool,
    /// When executors were built anew.
    restarts: VecDeque<Instant>,
}

impl Restarting {
    pub fn new(executor: Box<dyn Executor>, build: Build) -> Self {
        let capacity = executor.capacity().clone();
        Self { executor: Some(executor), build, capacity, is_lost: false, restarts: VecDeque::new() }
    }

    /// Passes a call on, and remembers whether the executor was lost in it.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Executor) -> Result<T, ExecutorError>,
    ) -> Result<T, ExecutorError> {
        let gone = || ExecutorError::Lost("there is no executor any more".to_owned());
        let result = call(self.executor.as_mut().ok_or_else(gone)?.as_mut());
        self.is_lost |= matches!(result, Err(ExecutorError::Lost(_)));
        result
    }

    /// The old one goes first: its memory is wanted for the new one.
    fn rebuild(&mut self, now: Instant) -> Result<(), String> {
        self.executor = None;
        self.restarts.retain(|&at| now.duration_since(at) < WITHIN);
        if self.restarts.len() == MAX_RESTARTS {
            let minutes = WITHIN.as_secs() / 60;
            return Err(format!("the device was lost {} times within {minutes} minutes", MAX_RESTARTS + 1));
        }
        self.restarts.push_back(now);
        tracing::warn!("the device was lost; loading the model again ({} of {MAX_RESTARTS})", self.restarts.len());
        let executor = (self.build)()?;
        if *executor.capacity() != self.capacity {
            return Err("the device holds less than it did before it was lost".to_owned());
        }
        self.executor = Some(executor);
        self.is_lost = false;
        Ok(())
    }
}

impl Executor for Restarting {
    fn capacity(&self) -> &KvCapacity {
        &self.capacity
    }

    fn submit(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError> {
        self.call(|executor| executor.submit(plan))
    }

    fn sample(&mut self, masks: &Masks) -> Result<(), ExecutorError> {
        self.call(|executor| executor.sample(masks))
    }

    fn wait(&mut self, out: &mut ModelRunnerOutput) -> Result<(), ExecutorError> {
        self.call(|executor| executor.wait(out))
    }

    fn control(&mut self, control: &Control) -> Result<(), ExecutorError> {
        if self.is_lost && matches!(control, Control::Restart { .. }) {
            self.rebuild(Instant::now()).map_err(ExecutorError::Lost)?;
        }
        self.call(|executor| executor.control(control))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Its first step is lost.
    struct Fragile {
        capacity: KvCapacity,
        alive: Rc<Cell<u32>>,
    }

    impl Fragile {
        fn make(alive: &Rc<Cell<u32>>, max_rows: u32) -> Box<dyn Executor> {
            assert_eq!(alive.get(), 0, "the old executor is gone before there is a new one");
            alive.set(1);
            let capacity = KvCapacity {
                pools: Vec::new(),
                groups: Vec::new(),
                max_rows,
                max_tokens: 1,
                max_logit_rows: 1,
                max_drafts: 0,
                max_model_len: 1,
                depth: 1,
            };
            Box::new(Self { capacity, alive: Rc::clone(alive) })
        }
    }

    impl Drop for Fragile {
        fn drop(&mut self) {
            self.alive.set(0);
        }
    }

    impl Executor for Fragile {
        fn capacity(&self) -> &KvCapacity {
            &self.capacity
        }
        fn submit(&mut self, _: &SchedulerOutput) -> Result<(), ExecutorError> {
            Err(ExecutorError::Lost("gone".to_owned()))
        }
        fn sample(&mut self, _: &Masks) -> Result<(), ExecutorError> {
            Err(ExecutorError::Refused("no".to_owned()))
        }
        fn wait(&mut self, _: &mut ModelRunnerOutput) -> Result<(), ExecutorError> {
            Ok(())
        }
        fn control(&mut self, _: &Control) -> Result<(), ExecutorError> {
            Ok(())
        }
    }

    /// An executor, and how many were built after it; the n-th has room for `rows(n)`.
    fn restarting(rows: fn(u32) -> u32) -> (Restarting, Rc<Cell<u32>>) {
        let (alive, built) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let first = Fragile::make(&alive, rows(0));
        let counter = Rc::clone(&built);
        let build = Box::new(move || {
            counter.set(counter.get() + 1);
            Ok(Fragile::make(&alive, rows(counter.get())))
        });
        (Restarting::new(first, build), built)
    }

    fn restart(executor: &mut Restarting) -> Result<(), ExecutorError> {
        executor.control(&Control::Restart { epoch: 1 })
    }

    #[test]
    fn a_lost_executor_is_built_anew_three_times() {
        let (mut executor, built) = restarting(|_| 4);
        for num in 1..=3 {
            assert!(matches!(executor.submit(&SchedulerOutput::default()), Err(ExecutorError::Lost(_))));
            restart(&mut executor).unwrap();
            assert_eq!(built.get(), num);
        }
        executor.submit(&SchedulerOutput::default()).unwrap_err();
        let end = restart(&mut executor).unwrap_err().to_string();
        assert!(end.contains("4 times within 10 minutes"), "{end}");
        assert!(matches!(executor.wait(&mut ModelRunnerOutput::default()), Err(ExecutorError::Lost(_))));
    }

    #[test]
    fn losses_long_ago_do_not_count() {
        let (mut executor, built) = restarting(|_| 4);
        let start = Instant::now();
        for num in 0..8 {
            executor.rebuild(start + WITHIN / 3 * num).unwrap();
        }
        assert_eq!(built.get(), 8);
    }

    #[test]
    fn a_refusal_is_no_loss() {
        let (mut executor, built) = restarting(|_| 4);
        executor.sample(&Masks::default()).unwrap_err();
        restart(&mut executor).unwrap();
        assert_eq!(built.get(), 0);
    }

    #[test]
    fn less_room_than_before_is_the_end() {
        let (mut executor, _) = restarting(|built| 4 - built);
        executor.submit(&SchedulerOutput::default()).unwrap_err();
        assert!(restart(&mut executor).unwrap_err().to_string().contains("less than it did"));
    }
}
