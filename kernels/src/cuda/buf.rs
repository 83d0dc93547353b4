//! Buffers of ops: the step's arena, and what stays resident.

use std::cell::Cell;
use std::rc::Rc;

use tensor::{DeviceError, Region, Workspace};

use super::device::{Address, Device};
use super::memory::Memory;

/// Device memory of f32, or of bf16 where an op says so.
#[derive(Clone)]
pub struct Buf(Place);

#[derive(Clone)]
enum Place {
    Arena(Rc<Cell<Address>>, Region),
    Resident(Rc<Memory>),
}

impl Buf {
    pub(super) fn resident(memory: Memory) -> Self {
        Self(Place::Resident(Rc::new(memory)))
    }

    /// Not to be followed while planning.
    pub(super) fn address(&self) -> Address {
        match &self.0 {
            Place::Arena(base, region) => base.get() + region.start() as Address,
            Place::Resident(memory) => memory.address(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Place::Arena(_, region) => region.bytes(),
            Place::Resident(memory) => memory.bytes(),
        }
    }

    /// Elements of f32.
    pub(super) fn len(&self) -> usize {
        self.bytes() / 4
    }

    /// Start and bytes in the arena; `None` for what is resident.
    pub(super) fn place(&self) -> Option<(usize, usize)> {
        match &self.0 {
            Place::Arena(_, region) => Some((region.start(), region.bytes())),
            Place::Resident(_) => None,
        }
    }
}

/// The memory of a step's activations.
pub(super) struct Arena {
    workspace: Workspace,
    base: Rc<Cell<Address>>,
    memory: Option<Memory>,
}

impl Arena {
    pub fn new() -> Self {
        Self { workspace: Workspace::new(), base: Rc::default(), memory: None }
    }

    /// Ends planning: takes the memory that the planned steps need.
    pub fn commit(&mut self, device: &Rc<Device>) -> Result<(), DeviceError> {
        if self.memory.is_none() {
            self.workspace.seal();
            let memory = device.alloc(self.workspace.capacity())?;
            self.base.set(memory.address());
            self.memory = Some(memory);
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.workspace.capacity()
    }

    pub fn alloc(&self, bytes: usize) -> Buf {
        Buf(Place::Arena(Rc::clone(&self.base), self.workspace.alloc(bytes)))
    }

    /// What an earlier step had at `place`.
    pub fn claim(&self, (start, bytes): (usize, usize)) -> Buf {
        Buf(Place::Arena(Rc::clone(&self.base), self.workspace.claim(start, bytes)))
    }
}
