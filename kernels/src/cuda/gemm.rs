//! Which matmul kernel runs, on which tiles, and how K is split.

use tensor::{Act, Activation, Encoding};

use super::act::e4m3;
use super::device::Address;
use super::params::{Fp8, Gemm, Permute, Scales};
use super::weight::{Kind, Scaling, Weight};
use super::{Buf, Cuda, address, int};

/// What a block of a matmul takes, as `gemm_out.cuh` has it.
pub(super) struct Tile {
    pub rows: usize,
    pub outputs: usize,
    pub threads: usize,
}

/// By size. Experts have the first two.
pub(super) const TILES: [Tile; 3] = [
    Tile { rows: 16, outputs: 64, threads: 128 },
    Tile { rows: 64, outputs: 64, threads: 128 },
    Tile { rows: 128, outputs: 128, threads: 256 },
];
/// Outputs of a tile where K may be split over blocks.
const TILE_N: usize = TILES[1].outputs;
/// 16-bit columns of a stage, as `gemm_tile.cuh` has them.
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
    /// Units gated by `f`, and their rows' peaks unless that is null.
    Glu {
        f: Activation,
        peaks: Address,
    },
}

/// The kernels of one kind of weight: names by what becomes of the sums and by tile, those of experts in a second table; stages of the ring
/// of the smallest tile, and of the others; bytes of a stage's codes and scales, an output.
struct Kernels {
    names: [[&'static str; 3]; 3],
    experts: [[&'static str; 2]; 2],
    stages: [usize; 2],
    output_bytes: usize,
}

macro_rules! kernels {
    ($kind:literal, $stages:expr, $output_bytes:expr) => {
        Kernels {
            names: [
                kernels!(@by_tile "gemm_", $kind, "_store_", 16 64 128),
                kernels!(@by_tile "gemm_", $kind, "_add_", 16 64 128),
                kernels!(@by_tile "gemm_", $kind, "_glu_", 16 64 128),
            ],
            experts: [
                kernels!(@by_tile "experts_", $kind, "_store_", 16 64),
                kernels!(@by_tile "experts_", $kind, "_glu_", 16 64),
            ],
            stages: $stages,
            output_bytes: $output_bytes,
        }
    };
    (@by_tile $what:literal, $kind:literal, $out:literal, $($rows:literal)*) => {
        [$(concat!($what, $kind, $out, $rows)),*]
    };
}

/// The kernel of experts of `kind` whose tile is `TILES[size]`, and its shared memory.
pub(super) fn experts_kernel(kind: Kind, is_glu: bool, size: usize) -> (&'static str, usize) {
    let kernels = kernels_of(kind);
    (kernels.experts[usize::from(is_glu)][size], kernels.shared_bytes(kind, size))
}

impl Kernels {
    /// Inputs of FP8 carry their scales into each stage; of the smallest tile they may be of bf16 in place of codes.
    fn shared_bytes(&self, kind: Kind, size: usize) -> usize {
        let row_bytes = match kind {
            Kind::Fp8(_) if size == 0 => TILE_K * 4,
            Kind::Fp8(_) => TILE_K * 2 + 4,
            _ => TILE_K * 2,
        };
        let Tile { rows, outputs, .. } = TILES[size];
        self.stages[size.min(1)] * (rows * row_bytes + outputs * self.output_bytes)
    }
}

fn kernels_of(kind: Kind) -> Kernels {
    match kind {
        Kind::Bf16 => kernels!("bf16", [4, 3], TILE_K * 2),
        Kind::W4 => kernels!("w4", [8, 4], TILE_K / 2 + 8),
        Kind::W8 => kernels!("w8", [6, 3], TILE_K + 8),
        Kind::Int4(32) => kernels!("int4_32", [8, 4], TILE_K / 2 + 8),
        Kind::Int4(_) => kernels!("int4_64", [8, 4], TILE_K / 2 + 4),
        Kind::Q4K => kernels!("q4k", [8, 4], TILE_K / 2 + 16),
        Kind::Q6K => kernels!("q6k", [6, 3], TILE_K / 4 * 3 + 18),
        Kind::Fp8(_) => kernels!("fp8", [4, 3], TILE_K * 2 + 4),
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

/// Which of `TILES` a product of `rows` by `outputs` is cut into, on a card of `sms`: the largest where every SM gets one, as it reads half as
/// much; up to 64 rows a smaller one wastes less. An output's bits are the same in each.
fn tile_size(rows: usize, outputs: usize, sms: usize) -> usize {
    let [few, many, most] = &TILES;
    if rows <= few.rows {
        0
    } else if rows <= many.rows || rows.div_ceil(most.rows) * outputs.div_ceil(most.outputs) < sms {
        1
    } else {
        2
    }
}

/// Whether matmuls of so many rows make codes of bf16 by themselves, which those of the smallest tile do: `gemm_fp8.cu` says why.
pub(super) fn makes_codes(rows: usize) -> bool {
    rows <= TILES[0].rows
}

impl Cuda {
    /// `y = a w^T`, and what `out` makes of it.
    pub(super) fn gemm(&mut self, out: Out, a: &Act<Self>, w: &Weight, bias: Option<&Buf>, y: &Buf) {
        assert_eq!(a.cols, w.cols, "the input has {} columns, the weight wants {}", a.cols, w.cols);
        assert!(bias.is_none_or(|bias| bias.len() == w.rows), "a bias has one value an output");
        if self.multiply_by_library(out, a, w, bias, y) {
            return;
        }
        // Few rows leave most SMs idle unless each split has a block of its own; many rows fill them.
        let is_shared = w.splits > 1 && (self.planning || a.rows <= TILES[1].rows);
        let size = if self.planning { 1 } else { tile_size(a.rows, w.rows, self.sms) };
        let tile = &TILES[size];
        let partials = is_shared.then(|| self.floats(w.splits * w.rows.next_multiple_of(tile.outputs), tile.rows));
        let ordered = w.order.as_ref().map(|order| self.permuted(a, order));
        if self.planning {
            return;
        }
        let (kernels, x) = (kernels_of(w.kind), input(a, w.kind));
        let (which, f, peaks) = match out {
            Out::Store => (0, Activation::Silu, 0),
            Out::Add => (1, Activation::Silu, 0),
            Out::Glu { f, peaks } => (2, f, peaks),
        };
        let params = Gemm {
            x: ordered.as_ref().unwrap_or(x).address(),
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
            peaks,
        };
        let splits = if is_shared { w.splits } else { 1 };
        let grid = [w.rows.div_ceil(tile.outputs), a.rows.div_ceil(tile.rows), splits];
        let shared = kernels.shared_bytes(w.kind, size);
        let name = kernels.names[which][size];
        match w.kind {
            Kind::Fp8(scaling) => {
                self.launch(
                    name,
                    grid,
                    tile.threads,
                    shared,
                    &Fp8 { gemm: params, scales: scales(a, w.rows, scaling) },
                );
            }
            _ => self.launch(name, grid, tile.threads, shared, &params),
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

/// The same as it was emitted: so, or in bf16.
fn input(a: &Act<Cuda>, kind: Kind) -> &Buf {
    a.find(encoding(kind)).unwrap_or_else(|| a.get(Encoding::Bf16))
}

/// Where the scales of `a` lie, or what they are made of, and how those of a weight of so many rows lie.
pub(super) fn scales(a: &Act<Cuda>, rows: usize, scaling: Scaling) -> Scales {
    let encoding = scaling.encoding();
    let w_stride = if scaling.by_group { int(scaling.stride(rows)) } else { 0 };
    let weights = Scales { x: 0, peaks: 0, x_stride: 0, w_stride, w_shift: int(scaling.shift as usize) };
    if a.find(encoding).is_some() {
        let x = e4m3(a, encoding);
        return Scales { x: x.scales, x_stride: x.stride, ..weights };
    }
    assert!(makes_codes(a.rows), "activations were not emitted as {encoding:?}");
    match encoding {
        Encoding::E4m3Token => Scales { peaks: a.get(Encoding::Bf16Peaks).address(), ..weights },
        _ => weights,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_tile_is_for_products_that_fill_a_card() {
        for (rows, outputs, sms, expected) in [
            (1, 28672, 132, 0),
            (16, 28672, 132, 0),
            (17, 28672, 132, 1),
            (64, 128_256, 132, 1),
            (65, 128_256, 132, 2),
            (512, 4096, 132, 1),
            (544, 4096, 132, 2),
            (512, 4096, 108, 2),
            (8192, 1024, 132, 2),
            (8192, 0, 132, 1),
        ] {
            assert_eq!(tile_size(rows, outputs, sms), expected, "{rows} x {outputs} on {sms} SMs");
        }
    }

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
