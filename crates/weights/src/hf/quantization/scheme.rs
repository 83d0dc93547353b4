//! How one module's weight is stored: the layout of its elements, and the grid of its scales.

use quant::OwnedScales;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scheme {
    pub layout: Layout,
    pub grid: Grid,
    /// There are no zero points.
    pub symmetric: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `weight` F8_E4M3 `[N, K]`, `weight_scale` or `weight_scale_inv`, which is a factor too.
    Fp8,
    /// `weight` I8 `[N, K]`, `weight_scale`.
    Int8,
    /// `weight_packed` I32 `[N, K / 8]` of 4 bits or `[N, K / 4]` of 8, `weight_scale`, `weight_zero_point`, `weight_g_idx`.
    Packed { bits: u32 },
    /// `qweight` I32 `[K / 8, N]`, `qzeros` of which each is `zero_shift` too small, `scales` `[K / g, N]`, `g_idx`.
    Gptq { zero_shift: u8 },
    /// `qweight` I32 `[K, N / 8]`, `qzeros`, `scales` `[K / g, N]`.
    Awq,
}

/// The part of a matrix that has one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grid {
    Tensor,
    /// A row.
    Channel,
    /// One or the other, as the number of scales says.
    TensorOrChannel,
    /// So many columns of a row; all of them where there is no number.
    Group(Option<usize>),
    /// So many rows and columns.
    Block(usize, usize),
}

impl Grid {
    /// Rows and columns under one scale of a `rows` x `cols` matrix that has `found` scales.
    pub fn step(self, rows: usize, cols: usize, found: usize) -> (usize, usize) {
        let (rows_per, cols_per) = match self {
            Self::Tensor => (rows, cols),
            Self::TensorOrChannel if found == 1 => (rows, cols),
            Self::Channel | Self::TensorOrChannel | Self::Group(None) => (1, cols),
            Self::Group(Some(size)) => (1, size),
            Self::Block(rows_per, cols_per) => (rows_per, cols_per),
        };
        (rows_per.max(1), cols_per.max(1))
    }

    /// `values` of `shape` as the scales of a `rows` x `cols` matrix.
    pub fn scales(self, rows: usize, cols: usize, shape: &[usize], values: Vec<f32>) -> Result<OwnedScales, String> {
        let (rows_per, cols_per) = self.step(rows, cols, values.len());
        let (grid_rows, grid_cols) = (rows.div_ceil(rows_per), cols.div_ceil(cols_per));
        let fits = match shape {
            [] | [_] => grid_rows.checked_mul(grid_cols) == Some(values.len()),
            _ => *shape == [grid_rows, grid_cols],
        };
        if !fits {
            return Err(format!(
                "its scales are of shape {shape:?}, but {rows} x {cols} elements with one for each {rows_per} x {cols_per} \
                 want [{grid_rows}, {grid_cols}]"
            ));
        }
        Ok(OwnedScales::new(rows_per, cols_per, values))
    }
}
