//! What the engine thread and the handles share: a clock, a few atomics, the last statistics.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::{Health, State, Stats};

/// Written by the engine thread, read by anyone.
pub(crate) struct Shared {
    origin: Instant,
    step_timeout: Duration,
    state: AtomicU8,
    /// When the step under way began, in microseconds after `origin`, plus one; 0 between steps.
    step_began_us: AtomicU64,
    stats: Mutex<Stats>,
    /// Why the engine has ended by itself.
    given_up: watch::Sender<Option<String>>,
    next_request: AtomicU64,
}

impl Shared {
    pub fn new(step_timeout: Duration) -> Self {
        Self {
            origin: Instant::now(),
            step_timeout,
            state: AtomicU8::new(State::Ready as u8),
            step_began_us: AtomicU64::new(0),
            stats: Mutex::default(),
            given_up: watch::Sender::default(),
            next_request: AtomicU64::new(0),
        }
    }

    /// The engine's clock.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub fn next_request(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            state if state == State::Ready as u8 => State::Ready,
            state if state == State::Draining as u8 => State::Draining,
            _ => State::Stopped,
        }
    }

    /// States only ever move on.
    pub fn advance(&self, state: State) {
        self.state.fetch_max(state as u8, Ordering::AcqRel);
    }

    pub fn give_up(&self, reason: String) {
        self.given_up.send_replace(Some(reason));
    }

    pub async fn given_up(&self) -> String {
        let mut reason = self.given_up.subscribe();
        let reason = reason.wait_for(Option::is_some).await.expect("the sender is here");
        reason.clone().unwrap_or_default()
    }

    pub fn begin_step(&self) {
        self.step_began_us.store(self.now().as_micros() as u64 + 1, Ordering::Relaxed);
    }

    pub fn end_step(&self) {
        self.step_began_us.store(0, Ordering::Relaxed);
    }

    /// Whoever asks computes the age of the step under way, so that a hanging engine cannot hide it.
    pub fn health(&self) -> Health {
        let began = self.step_began_us.load(Ordering::Relaxed);
        let age = (began > 0).then(|| self.now().saturating_sub(Duration::from_micros(began - 1)));
        Health { state: self.state(), overdue: age.filter(|&age| age > self.step_timeout) }
    }

    pub fn publish(&self, stats: &Stats) {
        self.stats.lock().expect("nothing panics while it holds the statistics").clone_from(stats);
    }

    pub fn stats(&self) -> Stats {
        self.stats.lock().expect("nothing panics while it holds the statistics").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_overdue_only_while_it_is_under_way() {
        let shared = Shared::new(Duration::ZERO);
        assert_eq!(shared.health().overdue, None);
        shared.begin_step();
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(50) {}
        assert!(shared.health().overdue.is_some());
        shared.end_step();
        assert_eq!(shared.health(), Health { state: State::Ready, overdue: None });
    }

    #[test]
    fn states_never_go_back() {
        let shared = Shared::new(Duration::ZERO);
        for (to, then) in [
            (State::Draining, State::Draining),
            (State::Ready, State::Draining),
            (State::Stopped, State::Stopped),
            (State::Draining, State::Stopped),
        ] {
            shared.advance(to);
            assert_eq!(shared.state(), then);
        }
    }
}
