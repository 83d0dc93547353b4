//! Activations on the device: the bytes that each encoding takes, where its scales lie, and bf16 made e4m3.

use tensor::{Act, ActSet, Encoding};

use super::device::Address;
use super::params::{E4m3Rows, Quantize};
use super::{Buf, Cuda, gemm, int};

/// Columns under one scale of [`Encoding::E4m3G128`].
pub(super) const GROUP: usize = 128;
/// What the kernels write of one kind beside bf16.
const E4M3: [Encoding; 2] = [Encoding::E4m3Token, Encoding::E4m3G128];

/// As `row_peaks.cuh` has them: words of 16 rows, eight times.
const PEAKS_BYTES: usize = 16 * 8 * 4;

/// Scales a row of scales: one a token, in whole chunks of 16 bytes.
fn stride(rows: usize) -> usize {
    rows.next_multiple_of(4)
}

fn bytes(encoding: Encoding, rows: usize, cols: usize) -> usize {
    match num_scales(encoding, cols) {
        0 => rows * row_bytes(encoding, cols),
        groups => scales_at(rows, cols) + groups * stride(rows) * 4,
    }
}

/// Of a row, without its scales.
pub(super) fn row_bytes(encoding: Encoding, cols: usize) -> usize {
    if encoding == Encoding::Bf16 { cols * 2 } else { cols }
}

/// Of a row.
pub(super) fn num_scales(encoding: Encoding, cols: usize) -> usize {
    match encoding {
        Encoding::Bf16 => 0,
        Encoding::E4m3Token => 1,
        Encoding::E4m3G128 => cols.div_ceil(GROUP),
        other => panic!("the CUDA kernels have no {other:?} activations"),
    }
}

/// Behind the codes.
fn scales_at(rows: usize, cols: usize) -> usize {
    (rows * cols).next_multiple_of(16)
}

/// Codes and scales of activations in one of the two encodings of e4m3. Not to be followed while planning.
pub(super) fn e4m3(act: &Act<Cuda>, encoding: Encoding) -> E4m3Rows {
    let codes = act.get(encoding).address();
    let stride = if encoding == Encoding::E4m3G128 { stride(act.rows) } else { 0 };
    E4m3Rows { codes, scales: codes + scales_at(act.rows, act.cols) as Address, stride: int(stride) }
}

/// The encodings of e4m3 in `set`.
pub(super) fn e4m3_of(set: ActSet) -> impl Iterator<Item = Encoding> {
    E4M3.into_iter().filter(move |&encoding| set.contains(encoding))
}

impl Cuda {
    /// Memory for activations in every encoding of `set`.
    pub(super) fn activations(&mut self, rows: usize, cols: usize, set: ActSet) -> Act<Self> {
        set.iter().fold(Act::new(rows, cols), |act, encoding| {
            let buf = match encoding {
                Encoding::Bf16Peaks => self.peaks.take().expect("`by_parts` chooses peaks where there are any"),
                _ => self.arena.alloc(bytes(encoding, rows, cols)),
            };
            act.with(encoding, buf)
        })
    }

    /// Where the next norm leaves zeros to be raised to the peaks of so many rows; null where nobody asks for those.
    pub(super) fn zeroed_peaks(&mut self, rows: usize) -> Address {
        if !self.planning && !gemm::makes_codes(rows) {
            return 0;
        }
        self.peaks.get_or_insert_with(|| self.arena.alloc(PEAKS_BYTES)).address()
    }

    /// What an op that sees only parts of rows emits where `set` is wanted: bf16 in place of codes that the matmul after it makes by itself,
    /// with peaks where those codes have a scale a row. For peaks it takes a norm since the last op that emitted some.
    pub(super) fn by_parts(&self, rows: usize, set: ActSet) -> ActSet {
        let bf16 = ActSet::of(Encoding::Bf16);
        let chosen = |encoding| match encoding {
            Encoding::E4m3G128 => bf16,
            Encoding::E4m3Token if self.peaks.is_some() => bf16.union(ActSet::of(Encoding::Bf16Peaks)),
            other => ActSet::of(other),
        };
        if gemm::makes_codes(rows) { set.iter().map(chosen).fold(ActSet::EMPTY, ActSet::union) } else { set }
    }

    /// Where an op that sees only parts of a row writes bf16: the activations' own, or memory for [`Cuda::quantize`].
    pub(super) fn bf16(&self, act: &Act<Self>, set: ActSet) -> Buf {
        match set.contains(Encoding::Bf16) {
            true => act.get(Encoding::Bf16).clone(),
            false => self.arena.alloc(bytes(Encoding::Bf16, act.rows, act.cols)),
        }
    }

    /// Makes what `set` has of e4m3 from `bf16`.
    pub(super) fn quantize(&mut self, bf16: &Buf, act: &Act<Self>, set: ActSet) {
        for encoding in e4m3_of(set) {
            if self.planning {
                return;
            }
            assert!(act.cols.is_multiple_of(4), "rows are read four columns at a time");
            let params = Quantize { x: bf16.address(), to: e4m3(act, encoding), cols: int(act.cols) };
            self.launch("quantize_rows", [act.rows, 1, 1], 256, 0, &params);
        }
    }
}
