//! Ways to the device that the host does not wait for: a place that is filled anew every step, and large arrays in pieces.

use std::num::NonZero;
use std::ops::Range;
use std::rc::Rc;
use std::thread::{self, available_parallelism};

use cudarc::driver::DeviceRepr;
use tensor::DeviceError;

use super::device::{Address, Device, refused};
use super::memory::Memory;
use super::pinned::{Pinned, Strided};

/// Words of one piece of a large array: enough to keep the bus busy while the host fills the other, and the cores longer than they take to start.
const PIECE: usize = 2 << 20;
/// Rows of a matrix that are packed together: as many share words of fragments, and scales of FP8.
const PACKED_ROWS: usize = 8;

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

    /// Lets `fill` write `words`, and enqueues their copy to word `at` of the place.
    pub fn send(&mut self, at: usize, words: usize, fill: impl FnOnce(&mut [u32])) -> Result<(), DeviceError> {
        let side = self.sides.next();
        fill(&mut side.words()?[..words]);
        assert!((at + words) * 4 <= self.memory.bytes(), "{words} words from {at} on are within the place");
        side.send(words * 4, self.memory.address() + (at * 4) as Address)
    }
}

/// A part of a matrix's bytes: `runs` one after the other, in each of which all rows have `bytes`, one after the other; or `1 << shift` rows
/// together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub runs: usize,
    pub bytes: usize,
    pub shift: u32,
}

impl Plane {
    /// Bytes of so many rows in a run.
    fn width(self, rows: usize) -> usize {
        (rows >> self.shift) * self.bytes
    }

    /// Bytes from a run of so many rows to the next, on the device: whole chunks.
    pub fn pitch(self, rows: usize) -> usize {
        self.width(rows).next_multiple_of(16)
    }

    /// Bytes of so many rows in all runs, without gaps.
    pub fn bytes_of(self, rows: usize) -> usize {
        self.runs * self.width(rows)
    }
}

/// Takes arrays of any size to the device.
pub(super) struct Loader {
    sides: Sides,
    piece_bytes: usize,
    cores: usize,
}

impl Loader {
    pub fn new(device: &Rc<Device>) -> Result<Self, DeviceError> {
        Self::with(device, PIECE, available_parallelism().map_or(1, NonZero::get))
    }

    fn with(device: &Rc<Device>, piece: usize, cores: usize) -> Result<Self, DeviceError> {
        Ok(Self { sides: Sides::new(device, piece)?, piece_bytes: piece * 4, cores })
    }

    /// Fills `planes` of a matrix of so many rows, each at its address. `pack` writes bands of rows, plane after plane without gaps: on
    /// all cores, each band into its part of a page-locked piece, from where strided copies take it to its place while the
    /// next piece is packed.
    ///
    /// # Errors
    /// If the device fails, or a piece does not hold eight rows.
    pub fn load_rows(
        &mut self,
        rows: usize,
        planes: &[(Address, Plane)],
        pack: &(dyn Fn(Range<usize>, &mut [u8]) + Sync),
    ) -> Result<(), DeviceError> {
        let bytes_of = |rows: usize| planes.iter().map(|(_, plane)| plane.bytes_of(rows)).sum::<usize>();
        let least = bytes_of(PACKED_ROWS);
        if least > self.piece_bytes {
            let message = format!(
                "{PACKED_ROWS} rows of a matrix take {least} bytes, more than the {} of a piece",
                self.piece_bytes
            );
            return Err(refused(message));
        }
        let fair = rows.div_ceil(self.cores).next_multiple_of(PACKED_ROWS);
        let band = (self.piece_bytes / self.cores / least * PACKED_ROWS).clamp(PACKED_ROWS, fair.max(PACKED_ROWS));
        let together = band * (self.piece_bytes / bytes_of(band)).min(self.cores);
        for first in (0..rows).step_by(together) {
            let end = rows.min(first + together);
            let bands: Vec<_> = (first..end).step_by(band).map(|first| first..end.min(first + band)).collect();
            let side = self.sides.next();
            pack_bands(&bands, side.bytes()?.chunks_mut(bytes_of(band)), &|rows, bytes| {
                pack(rows.clone(), &mut bytes[..bytes_of(rows.len())]);
            });
            side.spread(
                bands
                    .iter()
                    .enumerate()
                    .flat_map(|(idx, band_rows)| strided(idx * bytes_of(band), band_rows, rows, planes)),
            )?;
        }
        Ok(())
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

/// Calls `pack` with each band and its part of a piece, on a thread each.
fn pack_bands<'a>(
    bands: &[Range<usize>],
    parts: impl Iterator<Item = &'a mut [u8]>,
    pack: &(dyn Fn(&Range<usize>, &mut [u8]) + Sync),
) {
    let mut parts = bands.iter().zip(parts);
    let own = parts.next();
    thread::scope(|scope| {
        for (rows, bytes) in parts {
            scope.spawn(move || pack(rows, bytes));
        }
        if let Some((rows, bytes)) = own {
            pack(rows, bytes);
        }
    });
}

/// The copies of a band that lies in a piece from byte `from` on.
fn strided(
    mut from: usize,
    band: &Range<usize>,
    rows: usize,
    planes: &[(Address, Plane)],
) -> impl Iterator<Item = Strided> {
    planes.iter().map(move |(to, plane)| {
        let (start, width) = (from, plane.width(band.len()));
        from += plane.bytes_of(band.len());
        let to = to + plane.width(band.start) as Address;
        Strided { from: start, to, width, runs: plane.runs, pitch: plane.pitch(rows) }
    })
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
    fn bands_of_any_matrix_find_their_places() {
        let Some(device) = device("bands_of_any_matrix_find_their_places") else { return };
        // What plane, run, row (or rows that share) and byte a byte is of.
        let value = |plane: usize, run: usize, row: usize, byte: usize| (plane * 89 + run * 37 + row * 11 + byte) as u8;
        let planes = [(3, 16, 0), (1, 6, 0), (2, 4, 3)].map(|(runs, bytes, shift)| Plane { runs, bytes, shift });
        let fill = |rows: Range<usize>, bytes: &mut [u8]| {
            let mut bytes = bytes.iter_mut();
            for (idx, plane) in planes.iter().enumerate() {
                for run in 0..plane.runs {
                    let places = (rows.start >> plane.shift..rows.end >> plane.shift)
                        .flat_map(|row| (0..plane.bytes).map(move |byte| (row, byte)));
                    places.for_each(|(row, byte)| *bytes.next().unwrap() = value(idx, run, row, byte));
                }
            }
            assert!(bytes.next().is_none(), "a band's bytes are its own");
        };
        // Fewer rows than cores have bands, whole pieces, and ends within a band; pieces that hold fewer bands than there are cores.
        for (rows, piece, cores) in [(8, 1000, 3), (56, 1000, 3), (200, 1000, 3), (200, 160, 2), (48, 130, 4)] {
            let mut loader = Loader::with(&device, piece, cores).unwrap();
            let memory = planes.map(|plane| device.alloc(plane.runs * plane.pitch(rows)).unwrap());
            let placed: Vec<_> = memory.iter().map(|memory| memory.address()).zip(planes).collect();
            loader.load_rows(rows, &placed, &fill).unwrap();
            for (idx, (plane, memory)) in planes.iter().zip(&memory).enumerate() {
                let mut found = vec![0u8; memory.bytes()];
                device.download(memory.address(), &mut found).unwrap();
                for (run, found) in found.chunks(plane.pitch(rows)).enumerate() {
                    for (at, &found) in found[..plane.width(rows)].iter().enumerate() {
                        let expected = value(idx, run, at / plane.bytes, at % plane.bytes);
                        assert_eq!(found, expected, "{rows} rows, plane {idx}, run {run}, byte {at}");
                    }
                }
            }
        }
        let mut small = Loader::with(&device, 100, 2).unwrap();
        let error = small.load_rows(8, &planes.map(|plane| (0, plane)), &fill).unwrap_err();
        assert!(error.message.contains("take 440 bytes, more than the 400"), "{}", error.message);
    }

    #[test]
    fn what_was_sent_last_is_there() {
        let Some(device) = device("what_was_sent_last_is_there") else { return };
        let mut staging = Staging::new(&device, 3).unwrap();
        for step in 0..5 {
            staging.send(0, 3, |words| words.copy_from_slice(&[step, step + 1, step + 2])).unwrap();
            staging.send(2, 1, |words| words.fill(9)).unwrap();
            let mut found = [0; 3];
            device.download(staging.address(), &mut found).unwrap();
            assert_eq!(found, [step, step + 1, 9]);
        }
    }
}
