//! The compute threads: they spin between ops, park when idle, and claim tiles by an atomic counter.
//!
//! Which thread computes a tile never changes its bits, and a thread that loses its core stalls nobody but itself. The
//! caller of [`Pool::run`] works too. A job is opened, worked on, closed: a worker that wakes late finds it closed and
//! goes back to sleep, and the caller waits only for those inside.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread::{JoinHandle, Thread};

/// Spins before a worker parks: some tens of microseconds, longer than any gap between the ops of a step.
const SPINS: u32 = 20_000;

/// The calling thread and `threads - 1` others.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

struct Worker {
    handle: Option<JoinHandle<()>>,
    thread: Thread,
    parked: Arc<AtomicBool>,
}

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts jobs; workers wait for it to change.
    epoch: AtomicU64,
    open: AtomicBool,
    inside: AtomicUsize,
    next: AtomicUsize,
    tiles: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    job: UnsafeCell<Option<Job>>,
}

// SAFETY: `job` is written only while no worker is inside and the job is closed, and read only by workers that entered
// an open one; `open` and `inside` are sequentially consistent. The pointee is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer is not used after the job is closed.
unsafe impl Send for Shared {}

impl Pool {
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            open: AtomicBool::new(false),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            tiles: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            job: UnsafeCell::new(None),
        });
        let workers = (1..threads).map(|idx| Worker::start(idx, &shared)).collect::<std::io::Result<_>>()?;
        Ok(Self { shared, workers })
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `tile(i)` once for each `i` below `tiles`, on any thread, in any order; returns when all are done.
    ///
    /// # Panics
    /// If a tile panicked, after all others are done.
    pub fn run(&self, tiles: usize, tile: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || tiles <= 1 {
            (0..tiles).for_each(tile);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: the job is closed and nobody is inside. The lifetime is erased; the job is closed, and everybody out,
        // before this function returns or unwinds.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(tile)) };
        shared.tiles.store(tiles, SeqCst);
        shared.next.store(0, SeqCst);
        shared.open.store(true, SeqCst);
        shared.epoch.fetch_add(1, SeqCst);
        self.workers.iter().filter(|worker| worker.parked.load(SeqCst)).for_each(|worker| worker.thread.unpark());
        let own = catch_unwind(AssertUnwindSafe(|| shared.claim(tile)));
        shared.open.store(false, SeqCst);
        let mut spins = 0u32;
        while shared.inside.load(SeqCst) > 0 {
            spins += 1;
            // A worker that lost its core to another thread gets this one.
            if spins.is_multiple_of(4096) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, SeqCst), "a compute thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.epoch.fetch_add(1, SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // A worker catches its tiles' panics; there is nothing to report here.
                drop(handle.join());
            }
        }
    }
}

impl Worker {
    fn start(idx: usize, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (shared, parked) = (Arc::clone(shared), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&parked);
        let handle = std::thread::Builder::new().name(format!("compute-{idx}")).spawn(move || shared.work(&flag))?;
        Ok(Self { thread: handle.thread().clone(), handle: Some(handle), parked })
    }
}

impl Shared {
    fn work(&self, parked: &AtomicBool) {
        let mut seen = 0;
        while !self.stop.load(SeqCst) {
            seen = self.await_epoch(seen, parked);
            self.inside.fetch_add(1, SeqCst);
            if self.open.load(SeqCst) {
                // SAFETY: the job is open and this thread is inside: the caller keeps the closure alive until it is out.
                let tile = unsafe { &*(*self.job.get()).expect("an open job has its tiles") };
                if catch_unwind(AssertUnwindSafe(|| self.claim(tile))).is_err() {
                    self.panicked.store(true, SeqCst);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    fn await_epoch(&self, seen: u64, parked: &AtomicBool) -> u64 {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(SeqCst);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        parked.store(true, SeqCst);
        while self.epoch.load(SeqCst) == seen {
            std::thread::park();
        }
        parked.store(false, SeqCst);
        self.epoch.load(SeqCst)
    }

    fn claim(&self, tile: &(dyn Fn(usize) + Sync)) {
        let tiles = self.tiles.load(SeqCst);
        loop {
            let idx = self.next.fetch_add(1, SeqCst);
            if idx >= tiles {
                return;
            }
            tile(idx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads).unwrap();
            for tiles in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tiles).map(|_| AtomicUsize::new(0)).collect();
                for round in 1..=50 {
                    pool.run(tiles, &|idx| {
                        counts[idx].fetch_add(1, SeqCst);
                    });
                    assert!(counts.iter().all(|count| count.load(SeqCst) == round), "{threads} threads, {tiles} tiles");
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2).unwrap();
        for bad in [0, 5, 99] {
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(100, &|idx| assert!(idx != bad, "tile {bad}"))));
            assert!(caught.is_err());
            let done = AtomicUsize::new(0);
            pool.run(100, &|_| {
                done.fetch_add(1, SeqCst);
            });
            assert_eq!(done.load(SeqCst), 100);
        }
    }
}
