//! Names that nobody can guess and nobody else gets, and the seeds of requests that bring none.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// 64 bits that differ from call to call and from process to process.
fn random() -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static CALLS: AtomicU64 = AtomicU64::new(0);
    KEYS.hash_one(CALLS.fetch_add(1, Ordering::Relaxed))
}

/// `prefix` and 32 hexadecimal digits.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}{:016x}{:016x}", random(), random())
}

/// A sequence of seeds: the same for the same first one.
pub(crate) struct Seeds {
    first: u64,
    drawn: AtomicU64,
}

impl Seeds {
    pub fn new(first: Option<u64>) -> Self {
        Self { first: first.unwrap_or_else(random), drawn: AtomicU64::new(0) }
    }

    pub fn draw(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.first, self.drawn.fetch_add(1, Ordering::Relaxed)).hash(&mut hasher);
        hasher.finish()
    }
}
