//! A hostile header must not make the reader allocate more than the file's own size justifies.

#![allow(clippy::unwrap_used, unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Made, folder};
use weights::Checkpoint;

/// The largest single allocation since it was last set to 0.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The only test of this binary, so that no other one's allocations are seen.
#[test]
fn flipped_counts_do_not_allocate() {
    let bytes = Made::llama().bytes();
    let path = folder("allocation").join("made.gguf");
    for at in 0..bytes.len() {
        let mut lying = bytes.clone();
        lying[at] = 0xff;
        std::fs::write(&path, &lying).unwrap();
        LARGEST.store(0, Ordering::Relaxed);
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            checkpoint.text_source().ok();
        }
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(largest <= 8 * bytes.len(), "byte {at}: {largest} bytes at once for a file of {}", bytes.len());
    }
}
