//! Quantizing weights as they are loaded: what to, and a row at a time.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use thiserror::Error;

use crate::{Format, OwnedScales, Stored, fp8_e4m3, int4};

/// Columns of a group of [`Scheme::Int4`], and of one where that does not divide the row.
const GROUP: usize = 128;
const SMALL_GROUP: usize = 32;

/// What weights are quantized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// FP8 with a scale a row.
    Fp8,
    /// INT4 with a scale and a zero for 128 columns of a row, or 32 where 128 does not divide it.
    Int4,
}

/// A value that no scale can hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("row {row} has a value that is no finite number")]
pub struct NotFinite {
    pub row: usize,
}

impl Scheme {
    pub const fn format(self) -> Format {
        match self {
            Self::Fp8 => Format::Fp8E4m3,
            Self::Int4 => Format::Int4,
        }
    }

    /// Elements and scales of `rows` of `stored`.
    ///
    /// # Panics
    /// If there are no such rows, or rows are of no whole blocks of the format.
    pub fn quantize_rows(self, stored: &Stored<'_>, rows: Range<usize>) -> Result<(Vec<u8>, OwnedScales), NotFinite> {
        let cols = stored.cols;
        assert!(self.format().row_bytes(cols).is_some(), "{cols} columns are whole blocks of {}", self.format());
        let mut values = vec![0.0; cols];
        let (mut elements, mut scales) = self.quantize(&[], cols);
        for row in rows {
            stored.dequantize_row(row, &mut values);
            if !values.iter().all(|value| value.is_finite()) {
                return Err(NotFinite { row });
            }
            let (of_row, scales_of_row) = self.quantize(&values, cols);
            elements.extend(of_row);
            scales.append(scales_of_row);
        }
        Ok((elements, scales))
    }

    fn quantize(self, values: &[f32], cols: usize) -> (Vec<u8>, OwnedScales) {
        let group = if cols.is_multiple_of(GROUP) { GROUP } else { SMALL_GROUP };
        match self {
            Self::Fp8 => fp8_e4m3::quantize_rows(values, cols),
            Self::Int4 => int4::quantize_groups(values, cols, group),
        }
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "fp8" => Ok(Self::Fp8),
            "int4" => Ok(Self::Int4),
            _ => Err(format!("weights are quantized to fp8 or int4, not {name:?}")),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp8 => "fp8",
            Self::Int4 => "int4",
        })
    }
}
