//! Activations in the encodings that their consumers asked for.

use crate::Backend;

/// How a row of activations is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    F32,
    Bf16,
    /// Signed bytes, one f32 scale and one integer sum per row and group of this many columns.
    Int8G32,
    Int8G64,
    Int8G128,
    /// As `Int8G32`, of 15 bits in two planes of bytes.
    Int16G32,
    /// FP8 with one scale a row.
    E4m3Token,
    /// FP8 with one scale a row and 128 columns.
    E4m3G128,
    /// Beside `Bf16`: the largest magnitude of each row, for a matmul that makes `E4m3Token` of it by itself.
    Bf16Peaks,
}

impl Encoding {
    pub const COUNT: usize = 9;

    pub const ALL: [Encoding; Self::COUNT] = [
        Self::F32,
        Self::Bf16,
        Self::Int8G32,
        Self::Int8G64,
        Self::Int8G128,
        Self::Int16G32,
        Self::E4m3Token,
        Self::E4m3G128,
        Self::Bf16Peaks,
    ];
}

/// A set of encodings: what a matmul eats, and so what the op before it emits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActSet(u16);

impl ActSet {
    pub const EMPTY: ActSet = ActSet(0);

    pub const fn of(encoding: Encoding) -> Self {
        Self(1 << encoding as u8)
    }

    pub const fn union(self, other: ActSet) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn contains(self, encoding: Encoding) -> bool {
        self.0 & (1 << encoding as u8) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Encoding> {
        Encoding::ALL.into_iter().filter(move |&encoding| self.contains(encoding))
    }
}

/// `rows` x `cols` activations, once per encoding that a consumer wants.
pub struct Act<B: Backend> {
    pub rows: usize,
    pub cols: usize,
    encoded: [Option<B::Buf>; Encoding::COUNT],
}

impl<B: Backend> Act<B> {
    pub fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols, encoded: [const { None }; Encoding::COUNT] }
    }

    pub fn with(mut self, encoding: Encoding, buf: B::Buf) -> Self {
        self.encoded[encoding as usize] = Some(buf);
        self
    }

    /// What the producer emitted as `encoding`, if it did.
    pub fn find(&self, encoding: Encoding) -> Option<&B::Buf> {
        self.encoded[encoding as usize].as_ref()
    }

    /// # Panics
    /// If the producer was not asked for this encoding: `Backend::wants` and the call that emitted disagree.
    pub fn get(&self, encoding: Encoding) -> &B::Buf {
        self.find(encoding).unwrap_or_else(|| panic!("activations were not emitted as {encoding:?}"))
    }
}
