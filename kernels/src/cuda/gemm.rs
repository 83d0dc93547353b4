//! Which matmul kernel runs, on which tiles.

use tensor::{Act, Activation, Encoding};

use super::params::Gemm;
use super::weight::{Kind, Weight};
use super::{Buf, Cuda, address, int};

/// Rows of the smaller of the two matmul tiles.
const FEW_ROWS: usize = 16;
/// And of the larger.
const MANY_ROWS: usize = 64;
/// Outputs of a matmul tile, k of a stage, and stages: as `gemm_tile.cuh` has them.
const TILE_N: usize = 64;
const TILE_K: usize = 64;
const STAGES: usize = 3;
/// Scales and minimums of a coded stage.
const META_BYTES: usize = TILE_K / 32 * TILE_N * 4;
/// A matmul's kernels: by the weight's kind, for few rows and for many.
pub(super) struct Names {
    bf16: [&'static str; 2],
    w4: [&'static str; 2],
    w8: [&'static str; 2],
}

pub(super) const STORE: Names = Names {
    bf16: ["gemm_store_16", "gemm_store_64"],
    w4: ["gemm_w4_store_16", "gemm_w4_store_64"],
    w8: ["gemm_w8_store_16", "gemm_w8_store_64"],
};
pub(super) const ADD: Names = Names {
    bf16: ["gemm_add_16", "gemm_add_64"],
    w4: ["gemm_w4_add_16", "gemm_w4_add_64"],
    w8: ["gemm_w8_add_16", "gemm_w8_add_64"],
};
pub(super) const GLU: Names = Names {
    bf16: ["gemm_glu_16", "gemm_glu_64"],
    w4: ["gemm_w4_glu_16", "gemm_w4_glu_64"],
    w8: ["gemm_w8_glu_16", "gemm_w8_glu_64"],
};

impl Cuda {
    /// `y = a w^T`, and what the kernel of `names` makes of it.
    pub(super) fn gemm(
        &mut self,
        names: &Names,
        a: &Act<Self>,
        w: &Weight,
        bias: Option<&Buf>,
        y: &Buf,
        f: Activation,
    ) {
        assert_eq!(a.cols, w.cols, "the input has {} columns, the weight wants {}", a.cols, w.cols);
        assert!(bias.is_none_or(|bias| bias.len() == w.rows), "a bias has one value an output");
        if self.planning {
            return;
        }
        let (size, rows) = if a.rows <= FEW_ROWS { (0, FEW_ROWS) } else { (1, MANY_ROWS) };
        let (name, stage_bytes) = match w.kind {
            Kind::Bf16 => (names.bf16[size], TILE_N * TILE_K * 2),
            Kind::W4 => (names.w4[size], TILE_N * TILE_K / 2 + META_BYTES),
            Kind::W8 => (names.w8[size], TILE_N * TILE_K + META_BYTES),
        };
        let params = Gemm {
            x: a.get(Encoding::Bf16).address(),
            w: w.data.address(),
            meta: address(w.meta.as_ref()),
            bias: address(bias),
            y: y.address(),
            m: int(a.rows),
            n: int(w.rows),
            k: int(w.cols),
            activation: i32::from(f == Activation::GeluTanh),
        };
        let grid = [w.rows.div_ceil(TILE_N), a.rows.div_ceil(rows), 1];
        self.launch(name, grid, 128, STAGES * (rows * TILE_K * 2 + stage_bytes), &params);
    }
}
