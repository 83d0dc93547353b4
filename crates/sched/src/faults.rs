//! Mistakes that the simulator can switch on to show that it would notice them. Without the `faults` feature every
//! question here is a constant `false` and the compiler removes the branch.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A row is told another block than the one it was given.
    WrongBlock,
    /// Block hashes leave out the parent.
    HashWithoutParent,
    /// Block hashes leave out the salt.
    HashWithoutSalt,
    /// A prefix hit does not count as a reference.
    UncountedShare,
    /// A preempted sequence keeps its computed count.
    KeepComputed,
    /// An aborted sequence keeps its blocks.
    AbortLeak,
    /// An aborted sequence gives a block back twice.
    AbortTwice,
    /// Blocks are published before the executor vouched for them.
    EarlyPublish,
    /// Blocks are published although the row's logits were not finite.
    PublishNonFinite,
    /// A prefix hit may leave nothing to sample from.
    ReadWholePrompt,
    /// Results are applied to whoever has the row now.
    StaleResult,
    /// The prefix map outlives the executor's memory.
    KeepPrefixAfterLoss,
    /// A row that ended is not dropped.
    ForgetDrop,
    /// A stop token does not stop.
    IgnoreStop,
}

#[cfg(feature = "faults")]
mod selected {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static SELECTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Makes this thread's schedulers commit `fault` from now on, or none.
    pub fn inject(fault: Option<Fault>) {
        SELECTED.set(fault);
    }

    pub(crate) fn is(fault: Fault) -> bool {
        SELECTED.get() == Some(fault)
    }
}

#[cfg(feature = "faults")]
pub use selected::inject;
#[cfg(feature = "faults")]
pub(crate) use selected::is;

#[cfg(not(feature = "faults"))]
pub(crate) const fn is(_fault: Fault) -> bool {
    false
}
