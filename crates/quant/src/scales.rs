//! The scales of the planar formats: a grid over the matrix, apart from its codes.

use thiserror::Error;

use crate::{Format, int4};

/// One scale for each `rows_per` rows and `cols_per` columns: (1, cols) is per channel, (rows, cols) per tensor, (128, 128)
/// blocks, (1, 128) groups. The last row and column of the grid may hang over.
///
/// `value = scale * element`; of [`Format::Int4`], `scale * (code - zero)`.
#[derive(Clone, Copy, Debug)]
pub struct Scales<'a> {
    pub rows_per: usize,
    pub cols_per: usize,
    /// `[ceil(rows / rows_per), ceil(cols / cols_per)]`, row-major.
    pub values: &'a [f32],
    /// Of [`Format::Int4`]: the code that means 0, on the same grid; 8 where there are none.
    pub zeros: Option<&'a [u8]>,
    /// Of [`Format::Int4`] whose columns were grouped in another order: column to group; else `column / cols_per`.
    pub group_of: Option<&'a [u32]>,
}

/// [`Scales`] that own their grid.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedScales {
    pub rows_per: usize,
    pub cols_per: usize,
    pub values: Vec<f32>,
    pub zeros: Option<Vec<u8>>,
    pub group_of: Option<Vec<u32>>,
}

/// Why scales are not those of a matrix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScalesError {
    #[error("{0} carries its scales within, and takes none beside it")]
    Within(Format),
    #[error("one scale is for {rows_per} rows and {cols_per} columns, but it must be for one of each at least")]
    Empty { rows_per: usize, cols_per: usize },
    #[error("the matrix wants {rows} x {groups} {what}, but there are {found}")]
    Grid { what: &'static str, rows: usize, groups: usize, found: usize },
    #[error("{0} has no zero points and no order of columns; INT4 has")]
    Int4Only(Format),
    #[error("a zero point is {0}, but INT4 has codes up to 15")]
    Zero(u8),
    #[error("{cols} columns want a group each, but {found} are named")]
    Order { cols: usize, found: usize },
    #[error("a column is said to be in group {group}, but there are {groups} groups")]
    Group { group: u32, groups: usize },
}

impl<'a> Scales<'a> {
    /// Columns of the grid over `cols` columns.
    pub fn groups(&self, cols: usize) -> usize {
        cols.div_ceil(self.cols_per)
    }

    /// The scales of the groups of row `row`, of a matrix of `cols` columns.
    pub fn row(&self, row: usize, cols: usize) -> &'a [f32] {
        let groups = self.groups(cols);
        &self.values[row / self.rows_per * groups..][..groups]
    }

    /// The zeros of the groups of row `row`, of a matrix of `cols` columns.
    pub fn zero_row(&self, row: usize, cols: usize) -> Option<&'a [u8]> {
        let groups = self.groups(cols);
        self.zeros.map(|zeros| &zeros[row / self.rows_per * groups..][..groups])
    }

    /// The group of column `col`.
    pub fn group(&self, col: usize) -> usize {
        self.group_of.map_or(col / self.cols_per, |group_of| group_of[col] as usize)
    }

    /// Whether these are the scales of a `rows` x `cols` matrix of `format`.
    pub fn check(&self, rows: usize, cols: usize, format: Format) -> Result<(), ScalesError> {
        if !format.is_planar() {
            return Err(ScalesError::Within(format));
        }
        let (rows_per, cols_per) = (self.rows_per, self.cols_per);
        if rows_per == 0 || cols_per == 0 {
            return Err(ScalesError::Empty { rows_per, cols_per });
        }
        let (rows, groups) = (rows.div_ceil(rows_per), self.groups(cols));
        let grid = |what, found| match rows.checked_mul(groups) {
            Some(len) if len == found => Ok(()),
            _ => Err(ScalesError::Grid { what, rows, groups, found }),
        };
        grid("scales", self.values.len())?;
        if format != Format::Int4 && (self.zeros.is_some() || self.group_of.is_some()) {
            return Err(ScalesError::Int4Only(format));
        }
        if let Some(zeros) = self.zeros {
            grid("zero points", zeros.len())?;
            zeros.iter().find(|zero| **zero > 15).map_or(Ok(()), |zero| Err(ScalesError::Zero(*zero)))?;
        }
        self.group_of.map_or(Ok(()), |group_of| check_order(group_of, cols, groups))
    }

    /// Scales the elements of row `row` in place.
    pub(crate) fn apply(&self, row: usize, elements: &mut [f32]) {
        let cols = elements.len();
        let (scales, zeros) = (self.row(row, cols), self.zero_row(row, cols));
        for (col, element) in elements.iter_mut().enumerate() {
            let group = self.group(col);
            let shift = zeros.map_or(0.0, |zeros| f32::from(zeros[group]) - f32::from(int4::ZERO));
            *element = scales[group] * (*element - shift);
        }
    }
}

fn check_order(group_of: &[u32], cols: usize, groups: usize) -> Result<(), ScalesError> {
    if group_of.len() != cols {
        return Err(ScalesError::Order { cols, found: group_of.len() });
    }
    match group_of.iter().find(|group| **group as usize >= groups) {
        Some(&group) => Err(ScalesError::Group { group, groups }),
        None => Ok(()),
    }
}

impl OwnedScales {
    /// Scales alone.
    pub fn new(rows_per: usize, cols_per: usize, values: Vec<f32>) -> Self {
        Self { rows_per, cols_per, values, zeros: None, group_of: None }
    }

    /// Puts the grid of further rows under this one.
    pub fn append(&mut self, below: OwnedScales) {
        self.values.extend(below.values);
        if let (Some(zeros), Some(below)) = (&mut self.zeros, below.zeros) {
            zeros.extend(below);
        }
    }

    pub fn borrow(&self) -> Scales<'_> {
        Scales {
            rows_per: self.rows_per,
            cols_per: self.cols_per,
            values: &self.values,
            zeros: self.zeros.as_deref(),
            group_of: self.group_of.as_deref(),
        }
    }
}
