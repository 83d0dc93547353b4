//! Which matmul kernel runs, on which tiles, and how K is split.

use tensor::{Act, Activation, Encoding};

use super::act::e4m3;
use super::params::{Fp8, Gemm, Permute, Scales};
use super::weight::{Kind, Scaling, Weight};
use super::{Buf, Cuda, address, int};

/// Rows of the smaller of the two matmul tiles, and of the larger.
pub(super) const TILE_ROWS: [usize; 2] = [16, 64];
/// Outputs of a tile, and k of a stage: as `gemm_tile.cuh` and `gemm_out.cuh` have them.
pub(super) const TILE_N: usize = 64;
const TILE_K: usize = 64;
/// Columns that a block of `permute.cu` takes.
const PERMUTED: usize = 1024;
/// Columns that a split has at least.
const MIN_SPLIT: usize = 512;
/// What splits are chosen for: the SMs of an H200, and the blocks of few rows that each holds.
const SMS: usize = 132;
const BLOCKS_PER_SM: usize = 4;
/// Tiles that share counters: where K is split there are no more.
pub(super) const MAX_SPLIT_TILES: usize = SMS * BLOCKS_PER_SM / 2;

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(super) enum Out {
    Store,
    Add,
    Glu,
}

/// The kernels of one kind of weight: names by what becomes of the sums, those of experts in a second table, then stages of the ring, all
/// by tile; bytes of a stage's codes and scales.
struct Kernels {
    names: [[&'static str; 2]; 3],
    experts: [[&'static str; 2]; 2],
    stages: [usize; 2],
    weight_bytes: usize,
}

macro_rules! kernels {
    ($kind:literal, $stages:expr, $weight_bytes:expr) => {
        Kernels {
            names: [
                [concat!("gemm_", $kind, "_store_16"), concat!("gemm_", $kind, "_store_64")],
                [concat!("gemm_", $kind, "_add_16"), concat!("gemm_", $kind, "_add_64")],
                [concat!("gemm_", $kind, "_glu_16"), concat!("gemm_", $kind, "_glu_64")],
            ],
            experts: [
                [concat!("experts_", $kind, "_store_16"), concat!("experts_", $kind, "_store_64")],
                [concat!("experts_", $kind, "_glu_16"), concat!("experts_", $kind, "_glu_64")],
            ],
            stages: $stages,
            weight_bytes: $weight_bytes,
        }
    };
}

/// The kernel of experts of `kind` whose tile has `TILE_ROWS[size]` rows, and its shared memory.
pub(super) fn experts_kernel(kind: Kind, is_glu: bool, size: usize) -> (&'static str, usize) {
    let kernels = kernels_of(kind);
    (kernels.experts[usize::from(is_glu)][size], kernels.shared_bytes(kind, size))
}

impl Kernels {
    /// Inputs of FP8 carry their scales into each stage.
    fn shared_bytes(&self, kind: Kind, size: usize) -> usize {
        let row_bytes = TILE_K * 2 + if matches!(kind, Kind::Fp8(_)) { 4 } else { 0 };
        self.stages[size] * (TILE_ROWS[size] * row_bytes + self.weight_bytes)
    }
}

fn kernels_of(kind: Kind) -> Kernels {
    const CODES: usize = TILE_N * TILE_K;
    match kind {
        Kind::Bf16 => kernels!("bf16", [4, 3], CODES * 2),
        Kind::W4 => kernels!("w4", [8, 4], CODES / 2 + TILE_N * 8),
        Kind::W8 => kernels!("w8", [6, 3], CODES + TILE_N * 8),
        Kind::Int4(32) => kernels!("int4_32", [8, 4], CODES / 2 + TILE_N * 8),
        Kind::Int4(_) => kernels!("int4_64", [8, 4], CODES / 2 + TILE_N * 4),
        Kind::Q4K => kernels!("q4k", [8, 4], CODES / 2 + TILE_N * 16),
        Kind::Q6K => kernels!("q6k", [6, 3], CODES / 4 * 3 + TILE_N * 18),
        Kind::Fp8(_) => kernels!("fp8", [4, 3], CODES * 2 + TILE_N * 4),
    }
}

/// Into how many runs the sum over `cols` is cut: so many that an SM has two blocks of few rows where it can, and then as many as keep all
/// SMs busy to the end. It depends on the weight's shape alone, so that a row's bits are the same in every batch, on every card.
///
/// At the shapes of an 8B model, in blocks an SM: 6144 x 4096 has 4 splits and 2.9; 4096 x 4096 and 4096 x 14336 have 4 and 1.9;
/// 28672 x 4096 has 1 and 3.4, 128256 x 4096 1 and 15.
pub(super) fn splits(rows: usize, cols: usize) -> usize {
    let (tiles, steps) = (rows.div_ceil(TILE_N).max(1), cols.div_ceil(TILE_K));
    let most = (cols / MIN_SPLIT).min(SMS * BLOCKS_PER_SM / tiles).max(1);
    let merit = |splits: usize| {
        let on_fullest = (splits * tiles).div_ceil(SMS);
        // Of the time that the fullest SM takes, the share that the average one works, in 1/1000.
        let evenness = tiles * steps * 1000 / (SMS * on_fullest * steps.div_ceil(splits)).max(1);
        (on_fullest.min(2), evenness)
    };
    (1..=most).rev().max_by_key(|&splits| merit(splits)).expect("there is one split at least")
}

impl Cuda {
    /// `y = a w^T`, and what `out` makes of it.
    pub(super) fn gemm(&mut self, out: Out, a: &Act<Self>, w: &Weight, bias: Option<&Buf>, y: &Buf, f: Activation) {
        assert_eq!(a.cols, w.cols, "the input has {} columns, the weight wants {}", a.cols, w.cols);
        assert!(bias.is_none_or(|bias| bias.len() == w.rows), "a bias has one value an output");
        if self.multiply_by_library(out, a, w, bias, y, f) {
            return;
        }
        // Few rows leave most SMs idle unless each split has a block of its own; many rows fill them.
        let is_shared = w.splits > 1 && (self.planning || a.rows <= TILE_ROWS[1]);
        let size = usize::from(self.planning || a.rows > TILE_ROWS[0]);
        let partials = is_shared.then(|| self.floats(w.splits * w.rows.next_multiple_of(TILE_N), TILE_ROWS[size]));
        let ordered = w.order.as_ref().map(|order| self.permuted(a, order));
        if self.planning {
            return;
        }
        let kernels = kernels_of(w.kind);
        let params = Gemm {
            x: ordered.as_ref().unwrap_or(a.get(encoding(w.kind))).address(),
            w: w.data.address(),
            meta: address(w.meta.as_ref()),
            bias: address(bias),
            y: y.address(),
            m: int(a.rows),
            n: int(w.rows),
            k: int(w.cols),
            activation: i32::from(f == Activation::GeluTanh),
            meta_shift: int(w.kind.meta_shift()),
            splits: int(w.splits),
            partials: address(partials.as_ref()),
            arrived: self.arrived.address(),
        };
        let tiles = w.rows.div_ceil(TILE_N);
        let grid = [tiles, a.rows.div_ceil(TILE_ROWS[size]), if is_shared { w.splits } else { 1 }];
        let shared = kernels.shared_bytes(w.kind, size);
        let name = kernels.names[out as usize][size];
        match w.kind {
            Kind::Fp8(scaling) => {
                self.launch(name, grid, 128, shared, &Fp8 { gemm: params, scales: scales(a, w.rows, scaling) });
            }
            _ => self.launch(name, grid, 128, shared, &params),
        }
    }

    /// The inputs `a` with their columns in the order `order`.
    fn permuted(&mut self, a: &Act<Self>, order: &Buf) -> Buf {
        assert_eq!(order.len(), a.cols, "an order names every column");
        let y = self.arena.alloc(a.rows * a.cols * 2);
        if !self.planning {
            let (x, order) = (a.get(Encoding::Bf16).address(), order.address());
            let params = Permute { x, order, y: y.address(), cols: int(a.cols) };
            self.launch("permute", [a.cols.div_ceil(PERMUTED), a.rows, 1], PERMUTED / 8, 0, &params);
        }
        y
    }
}

/// What a matmul with a weight of this kind reads.
pub(super) fn encoding(kind: Kind) -> Encoding {
    match kind {
        Kind::Fp8(scaling) => scaling.encoding(),
        _ => Encoding::Bf16,
    }
}

/// Where the scales of `a` lie, and how those of a weight of so many rows.
pub(super) fn scales(a: &Act<Cuda>, rows: usize, scaling: Scaling) -> Scales {
    let x = e4m3(a, scaling.encoding());
    let w_stride = if scaling.by_group { int(scaling.stride(rows)) } else { 0 };
    Scales { x: x.scales, x_stride: x.stride, w_stride, w_shift: int(scaling.shift as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_fill_a_card_evenly() {
        for ((rows, cols), expected) in [
            ((6144, 4096), 4),
            ((4096, 4096), 4),
            ((4096, 14336), 4),
            ((28672, 4096), 1),
            ((128_256, 4096), 1),
            ((576, 576), 1),
            ((576, 1536), 3),
            ((8192, 8192), 2),
            ((64, 1024), 2),
            ((0, 0), 1),
        ] {
            assert_eq!(splits(rows, cols), expected, "{rows} x {cols}");
        }
        for rows in 1..100 {
            let splits = splits(rows * 1000, 1 << 20);
            assert!(splits == 1 || (rows * 1000).div_ceil(TILE_N) <= MAX_SPLIT_TILES, "{rows}000 rows in {splits}");
        }
    }
}
