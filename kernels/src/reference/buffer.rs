//! Buffers that are vectors, and the ledger of how much they take together.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;

/// Shared `f32` values.
#[derive(Clone)]
pub struct Buf(Rc<Values>);

struct Values {
    values: RefCell<Vec<f32>>,
    ledger: Ledger,
}

/// Bytes that a step's buffers take now, and took at most.
#[derive(Clone, Default)]
pub(super) struct Ledger(Rc<Account>);

#[derive(Default)]
struct Account {
    live: Cell<u64>,
    peak: Cell<u64>,
}

impl Ledger {
    pub fn buffer(&self, values: Vec<f32>) -> Buf {
        self.0.live.set(self.0.live.get() + size_of_val(values.as_slice()) as u64);
        self.0.peak.set(self.0.peak.get().max(self.0.live.get()));
        Buf(Rc::new(Values { values: RefCell::new(values), ledger: self.clone() }))
    }

    pub fn peak_bytes(&self) -> u64 {
        self.0.peak.get()
    }
}

impl Buf {
    /// Memory that stays: on a ledger of its own.
    pub(super) fn resident(values: Vec<f32>) -> Self {
        Ledger::default().buffer(values)
    }

    pub(super) fn len(&self) -> usize {
        self.0.values.borrow().len()
    }

    pub(super) fn values(&self) -> Ref<'_, [f32]> {
        Ref::map(self.0.values.borrow(), Vec::as_slice)
    }

    pub(super) fn values_mut(&self) -> RefMut<'_, [f32]> {
        RefMut::map(self.0.values.borrow_mut(), Vec::as_mut_slice)
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        let bytes = size_of_val(self.values.get_mut().as_slice()) as u64;
        self.ledger.0.live.set(self.ledger.0.live.get() - bytes);
    }
}
