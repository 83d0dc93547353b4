//! Ways to the device that the host does not wait for: a place that is filled anew every step, and large arrays in pieces.

use std::rc::Rc;

use cudarc::driver::DeviceRepr;
use tensor::DeviceError;

use super::device::{Address, Device};
use super::memory::Memory;
use super::pinned::Pinned;

/// Words of one piece of a large array: enough to keep the bus busy while the host fills the other.
const PIECE: usize = 2 << 20;

/// One place on the device, and two on the host that take turns.
pub(super) struct Staging {
    memory: Memory,
    sides: Sides,
}

impl Staging {
    pub fn new(device: &Rc<Device>, words: usize) -> Result<Self, DeviceError> {
        Ok(Self { memory: device.alloc(words * 4)?, sides: Sides::new(device, words)? })
    }

    /// The same for as long as this lives.
    pub fn address(&self) -> Address {
        self.memory.address()
    }

    /// Lets `fill` write `words`, and enqueues their copy.
    pub fn send(&mut self, words: usize, fill: impl FnOnce(&mut [u32])) -> Result<(), DeviceError> {
        let side = self.sides.next();
        fill(&mut side.words()?[..words]);
        side.send(words * 4, self.memory.address())
    }
}

/// Takes arrays of any size to the device.
pub(super) struct Loader {
    sides: Sides,
}

impl Loader {
    pub fn new(device: &Rc<Device>) -> Result<Self, DeviceError> {
        Ok(Self { sides: Sides::new(device, PIECE)? })
    }

    /// Copies `values` to memory at `to`, which has room for them.
    pub fn load<T: DeviceRepr>(&mut self, mut to: Address, values: &[T]) -> Result<(), DeviceError> {
        // SAFETY: numbers, which have no padding, are bytes too.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        for piece in bytes.chunks(PIECE * 4) {
            let side = self.sides.next();
            side.bytes()?[..piece.len()].copy_from_slice(piece);
            side.send(piece.len(), to)?;
            to += piece.len() as Address;
        }
        Ok(())
    }
}

/// Two pieces of host memory that take turns: one is filled while the other is read.
struct Sides {
    sides: [Pinned; 2],
    turn: usize,
}

impl Sides {
    fn new(device: &Rc<Device>, words: usize) -> Result<Self, DeviceError> {
        Ok(Self { sides: [Pinned::new(device, words)?, Pinned::new(device, words)?], turn: 0 })
    }

    fn next(&mut self) -> &mut Pinned {
        self.turn = 1 - self.turn;
        &mut self.sides[self.turn]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(test: &str) -> Option<Rc<Device>> {
        Device::open(0).inspect_err(|error| testkit::skip(test, &error.to_string())).ok()
    }

    #[test]
    fn an_array_of_many_pieces_arrives_whole() {
        let Some(device) = device("an_array_of_many_pieces_arrives_whole") else { return };
        let mut loader = Loader::new(&device).unwrap();
        for len in [0, 1, PIECE, 3 * PIECE + 5] {
            let values: Vec<u32> = (0..len as u32).map(|idx| idx.wrapping_mul(0x9e37_79b9)).collect();
            let memory = device.alloc(len * 4).unwrap();
            loader.load(memory.address(), &values).unwrap();
            let mut found = vec![0; len];
            device.download(memory.address(), &mut found).unwrap();
            assert_eq!(found, values, "{len} words");
        }
    }

    #[test]
    fn what_was_sent_last_is_there() {
        let Some(device) = device("what_was_sent_last_is_there") else { return };
        let mut staging = Staging::new(&device, 3).unwrap();
        for step in 0..5 {
            staging.send(3, |words| words.copy_from_slice(&[step, step + 1, step + 2])).unwrap();
            let mut found = [0; 3];
            device.download(staging.address(), &mut found).unwrap();
            assert_eq!(found, [step, step + 1, step + 2]);
        }
    }
}
