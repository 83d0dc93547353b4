//! Memory behind buffers: the step's arena, and what stays resident.

use std::rc::Rc;

use tensor::{Region, Workspace};

/// A cache line: every allocation and every region starts on one.
const LINE: usize = 64;

/// Bytes on the heap, aligned to cache lines, zero at first. Pages that are never touched take no memory: bytes are the one
/// element that the allocator zeroes by mapping fresh pages, and so the alignment is made here.
pub(super) struct Lines {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Lines {
    pub fn zeroed(bytes: usize) -> Self {
        let memory = vec![0u8; bytes + LINE];
        let start = memory.as_ptr().align_offset(LINE);
        Self { memory, start, bytes }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.memory[self.start..].as_ptr()
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory[self.start..].as_mut_ptr()
    }
}

/// A buffer of f32 (or of an activation encoding, see `act`).
#[derive(Clone)]
pub enum Buf {
    Arena(Rc<ArenaBase>, Region),
    Resident(Rc<[f32]>),
}

/// Where the arena lies; shared by its buffers. Null while planning.
#[derive(Default)]
pub struct ArenaBase(std::cell::Cell<usize>);

/// The memory of a step's activations.
pub(super) struct Arena {
    workspace: Workspace,
    base: Rc<ArenaBase>,
    memory: Option<Lines>,
}

impl Arena {
    pub fn new() -> Self {
        Self { workspace: Workspace::new(), base: Rc::default(), memory: None }
    }

    /// Ends planning: takes the memory that the planned steps need.
    pub fn commit(&mut self) {
        if self.memory.is_none() {
            self.workspace.seal();
            let mut memory = Lines::zeroed(self.workspace.capacity());
            self.base.0.set(memory.as_mut_ptr() as usize);
            self.memory = Some(memory);
        }
    }

    pub fn bytes(&self) -> usize {
        self.workspace.capacity()
    }

    /// A buffer of `bytes`, poisoned with NaN in debug builds.
    pub fn alloc(&self, bytes: usize) -> Buf {
        let region = self.workspace.alloc(bytes);
        let buf = Buf::Arena(Rc::clone(&self.base), region);
        if cfg!(debug_assertions) && self.memory.is_some() {
            // SAFETY: the region lies within the committed arena, and no other buffer covers it.
            unsafe { std::ptr::write_bytes(buf.ptr().cast::<u8>(), 0xff, bytes) };
        }
        buf
    }
}

impl Buf {
    /// The first element. Only kernels follow it, and only within [`Buf::bytes`].
    pub(super) fn ptr(&self) -> *mut f32 {
        match self {
            Self::Arena(base, region) => (base.0.get() + region.start()) as *mut f32,
            Self::Resident(values) => values.as_ptr().cast_mut(),
        }
    }

    /// Whether there is memory behind the buffer: not while planning.
    pub(super) fn has_memory(&self) -> bool {
        match self {
            Self::Arena(base, _) => base.0.get() != 0,
            Self::Resident(_) => true,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Arena(_, region) => region.bytes(),
            Self::Resident(values) => std::mem::size_of_val::<[f32]>(values),
        }
    }

    /// Elements, if they are f32.
    pub(super) fn len(&self) -> usize {
        self.bytes() / 4
    }
}

/// A pointer that tiles on several threads share; each writes a part of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub *mut T);

// SAFETY: whoever makes tiles gives each its own part of what lies behind the pointer.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer. (A method, so that closures capture the wrapper.)
    pub fn get(self) -> *mut T {
        self.0
    }
}
