//! The arena of a step: where activations live, by offset, without allocating.
//!
//! A first-fit allocator over one address range. It hands out [`Region`]s, which come back when the last clone is
//! dropped; the backend maps offsets to memory. While it plans, the range may grow; once sealed, a step that needs
//! more than was planned is a bug and panics.

use std::cell::RefCell;
use std::rc::Rc;

/// Regions start at multiples of this, a cache line and a zmm register.
const ALIGN: usize = 64;
/// Regions alive at once, with room to spare; a forward holds about ten.
const MAX_REGIONS: usize = 256;

/// One thread's arena of offsets.
#[derive(Clone)]
pub struct Workspace {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    /// Sorted by start, never touching.
    live: Vec<Live>,
    capacity: usize,
    sealed: bool,
}

struct Live {
    start: usize,
    end: usize,
    refs: u32,
}

impl Workspace {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let inner = Inner { live: Vec::with_capacity(MAX_REGIONS), capacity: 0, sealed: false };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// A region of `bytes`, at the lowest offset that has room.
    ///
    /// # Panics
    /// If sealed and full, or if `MAX_REGIONS` are alive.
    pub fn alloc(&self, bytes: usize) -> Region {
        let mut inner = self.inner.borrow_mut();
        let size = bytes.max(1).next_multiple_of(ALIGN);
        let mut start = 0;
        let mut idx = 0;
        while idx < inner.live.len() && inner.live[idx].start - start < size {
            start = inner.live[idx].end;
            idx += 1;
        }
        let end = start + size;
        assert!(inner.live.len() < MAX_REGIONS, "a step keeps at most {MAX_REGIONS} regions alive");
        assert!(
            end <= inner.capacity || !inner.sealed,
            "the workspace was planned for {} bytes and a step asked for {end}",
            inner.capacity
        );
        inner.capacity = inner.capacity.max(end);
        inner.live.insert(idx, Live { start, end, refs: 1 });
        Region { workspace: self.clone(), start, bytes }
    }

    /// The region that an earlier step had at `start`, for a step that repeats that one.
    ///
    /// # Panics
    /// If any of it is taken, or was never planned.
    pub fn claim(&self, start: usize, bytes: usize) -> Region {
        let mut inner = self.inner.borrow_mut();
        let end = start + bytes.max(1).next_multiple_of(ALIGN);
        let idx = inner.live.partition_point(|region| region.end <= start);
        assert!(inner.live.get(idx).is_none_or(|region| region.start >= end), "a region is claimed while it is in use");
        assert!(end <= inner.capacity, "a region is claimed that was never there");
        inner.live.insert(idx, Live { start, end, refs: 1 });
        Region { workspace: self.clone(), start, bytes }
    }

    /// Bytes that the planned steps take at most.
    pub fn capacity(&self) -> usize {
        self.inner.borrow().capacity
    }

    /// Ends planning: from here on nothing grows.
    pub fn seal(&self) {
        self.inner.borrow_mut().sealed = true;
    }

    /// Regions alive; zero between steps.
    pub fn num_live(&self) -> usize {
        self.inner.borrow().live.len()
    }

    fn with_live<T>(&self, start: usize, change: impl FnOnce(&mut Vec<Live>, usize) -> T) -> T {
        let live = &mut self.inner.borrow_mut().live;
        let idx = live.binary_search_by_key(&start, |region| region.start).expect("a region is alive while referenced");
        change(live, idx)
    }
}

/// A piece of the workspace, given back when its last clone is dropped.
pub struct Region {
    workspace: Workspace,
    start: usize,
    bytes: usize,
}

impl Region {
    /// Offset from the start of the arena, a multiple of 64.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The size asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Clone for Region {
    fn clone(&self) -> Self {
        self.workspace.with_live(self.start, |live, idx| live[idx].refs += 1);
        Self { workspace: self.workspace.clone(), start: self.start, bytes: self.bytes }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.workspace.with_live(self.start, |live, idx| {
            live[idx].refs -= 1;
            if live[idx].refs == 0 {
                live.remove(idx);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_aligned_reused_and_returned_with_the_last_clone() {
        let workspace = Workspace::new();
        let first = workspace.alloc(100);
        let second = workspace.alloc(1);
        assert_eq!((first.start(), second.start()), (0, 128));
        let clone = first.clone();
        drop(first);
        assert_eq!(workspace.alloc(64).start(), 192, "the clone keeps the first region");
        drop(clone);
        assert_eq!(workspace.alloc(64).start(), 0);
        drop(second);
        assert_eq!((workspace.num_live(), workspace.capacity()), (0, 256));
    }

    #[test]
    fn a_claimed_region_is_where_it_was() {
        let workspace = Workspace::new();
        drop((workspace.alloc(64), workspace.alloc(64)));
        let claimed = workspace.claim(64, 10);
        assert_eq!((claimed.start(), claimed.bytes()), (64, 10));
        assert_eq!((workspace.alloc(64).start(), workspace.alloc(65).start()), (0, 128));
        drop(claimed);
        assert_eq!(workspace.alloc(64).start(), 0);
    }

    #[test]
    #[should_panic(expected = "while it is in use")]
    fn a_region_in_use_is_not_claimed() {
        let workspace = Workspace::new();
        let _taken = workspace.alloc(128);
        workspace.claim(64, 64);
    }

    #[test]
    #[should_panic(expected = "planned for 64 bytes")]
    fn a_sealed_workspace_does_not_grow() {
        let workspace = Workspace::new();
        drop(workspace.alloc(64));
        workspace.seal();
        drop(workspace.alloc(65));
    }
}
