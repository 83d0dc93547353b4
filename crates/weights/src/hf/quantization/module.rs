//! A module's stored parts, by the names that each scheme gives them, to one tensor with its scales.

use std::borrow::Cow;

use quant::{Format, OwnedScales, Stored, int4};
use safetensors::tensor::Dtype;

use super::super::shards::Shards;
use super::raw::RawTensor;
use super::repack::{self, AWQ_ORDER, IN_ORDER, NIBBLES, Words};
use super::scheme::{Layout, Scheme};
use crate::Tensor;

/// `model.layers.0.mlp.up_proj` in its files.
pub(super) struct Module<'a, 'n> {
    pub shards: &'a Shards,
    pub name: &'n str,
}

impl<'a> Module<'a, '_> {
    pub fn optional(&self, part: &str) -> Option<RawTensor<'a>> {
        self.shards.raw(&format!("{}.{part}", self.name))
    }

    fn part(&self, part: &str) -> Result<RawTensor<'a>, String> {
        self.optional(part).ok_or_else(|| format!("its {part} is missing"))
    }

    /// Whether its weight is stored in codes.
    pub fn is_coded(&self) -> bool {
        let packed = ["weight_packed", "qweight"].iter().any(|part| self.optional(part).is_some());
        packed || self.optional("weight").is_some_and(|weight| is_code(weight.dtype))
    }

    /// The first scales that there are beside its weight.
    pub fn stray_scales(&self) -> Option<&'static str> {
        ["weight_scale", "weight_scale_inv", "scales"].into_iter().find(|part| self.optional(part).is_some())
    }

    pub fn read(&self, scheme: Scheme) -> Result<Tensor<'a>, String> {
        let tensor = match scheme.layout {
            Layout::Fp8 => self.plain(scheme, Dtype::F8_E4M3, Format::Fp8E4m3),
            Layout::Int8 => self.plain(scheme, Dtype::I8, Format::Int8),
            Layout::Packed { bits } => self.packed(scheme, bits),
            Layout::Gptq { zero_shift } => self.gptq(scheme, zero_shift),
            Layout::Awq => self.awq(scheme),
        }?;
        tensor.check()?;
        Ok(tensor)
    }

    fn plain(&self, scheme: Scheme, dtype: Dtype, format: Format) -> Result<Tensor<'a>, String> {
        let weight = self.part("weight")?;
        if weight.dtype != dtype {
            return Err(format!("its type is {:?}, but quantization_config says {dtype:?}", weight.dtype));
        }
        let [rows, cols] = weight.matrix()?;
        let inverse = self.optional("weight_scale_inv");
        let scales = inverse.map_or_else(|| self.part("weight_scale"), Ok)?;
        let scales = scheme.grid.scales(rows, cols, scales.shape, scales.floats()?)?;
        Ok(Tensor { rows, cols, format, bytes: Cow::Borrowed(weight.bytes), scales: Some(scales) })
    }

    fn packed(&self, scheme: Scheme, bits: u32) -> Result<Tensor<'a>, String> {
        let weight = self.part("weight_packed")?;
        let ([rows, row_words], codes) = (weight.matrix()?, 32 / bits as usize);
        let cols = self.packed_cols(rows, row_words, codes)?;
        let words = weight.words()?.as_flattened();
        let row_bytes = cols.div_ceil(codes / 4);
        let mut bytes = match row_bytes == row_words * 4 {
            true => Cow::Borrowed(words),
            false => words.chunks_exact(row_words * 4).flat_map(|row| &row[..row_bytes]).copied().collect(),
        };
        let format = if bits == 4 { Format::Int4 } else { Format::Int8 };
        if bits == 8 {
            // Stored from 0 on.
            bytes.to_mut().iter_mut().for_each(|code| *code ^= 0x80);
        }
        let stored = self.part("weight_scale")?;
        let mut scales = scheme.grid.scales(rows, cols, stored.shape, stored.floats()?)?;
        if !scheme.symmetric {
            scales.zeros = Some(self.packed_zeros(rows, cols, &scales)?);
        }
        scales.group_of = self.order("weight_g_idx", &scales)?;
        Ok(Tensor { rows, cols, format, bytes, scales: Some(scales) })
    }

    /// What `weight_shape` says, which must fit the words; all that they hold where there is none.
    fn packed_cols(&self, rows: usize, row_words: usize, codes: usize) -> Result<usize, String> {
        let Some(shape) = self.optional("weight_shape") else { return Ok(row_words.saturating_mul(codes)) };
        let numbers: Vec<usize> = match shape.dtype {
            Dtype::I64 => shape.bytes.as_chunks().0.iter().map(|n| i64::from_le_bytes(*n) as usize).collect(),
            other => return Err(format!("its weight_shape is of type {other:?}, not I64")),
        };
        match numbers[..] {
            [n, cols] if n == rows && cols.div_ceil(codes) == row_words => Ok(cols),
            _ => Err(format!("its weight_shape {numbers:?} is not that of {rows} rows of {row_words} words")),
        }
    }

    /// One zero for each scale, of which there is at least one a row. Words hold eight neighbouring rows; older files have
    /// bytes around 0.
    fn packed_zeros(&self, rows: usize, cols: usize, scales: &OwnedScales) -> Result<Vec<u8>, String> {
        let (stored, groups) = (self.part("weight_zero_point")?, cols.div_ceil(scales.cols_per));
        let grid_rows = rows.div_ceil(scales.rows_per);
        if stored.dtype == Dtype::I8 {
            return Ok(stored.bytes.iter().map(|zero| zero.wrapping_add(int4::ZERO)).collect());
        }
        let row_words = grid_rows.div_ceil(NIBBLES);
        if *stored.shape != [row_words, groups] {
            return Err(format!("its weight_zero_point is of shape {:?}, not [{row_words}, {groups}]", stored.shape));
        }
        let words = Words { words: stored.words()?, row_words, groups, row_stride: groups, group_stride: 1 };
        let mut zeros = words.zeros(&IN_ORDER, 0);
        zeros.truncate(grid_rows * groups);
        Ok(zeros)
    }

    fn gptq(&self, scheme: Scheme, zero_shift: u8) -> Result<Tensor<'a>, String> {
        let weight = self.part("qweight")?;
        let [col_words, rows] = weight.matrix()?;
        let cols = col_words.checked_mul(NIBBLES).ok_or("its shape overflows")?;
        let bytes = Cow::Owned(repack::gptq(weight.words()?, rows));
        self.transposed(scheme, rows, cols, bytes, zero_shift)
    }

    fn awq(&self, scheme: Scheme) -> Result<Tensor<'a>, String> {
        let weight = self.part("qweight")?;
        let [cols, row_words] = weight.matrix()?;
        if !cols.is_multiple_of(2) {
            return Err(format!("{cols} columns are not whole bytes of codes"));
        }
        let rows = row_words.checked_mul(NIBBLES).ok_or("its shape overflows")?;
        let bytes = Cow::Owned(repack::awq(weight.words()?, row_words));
        self.transposed(scheme, rows, cols, bytes, 0)
    }

    /// Scales and zeros of GPTQ and AWQ, a row for each group.
    fn transposed(
        &self,
        scheme: Scheme,
        rows: usize,
        cols: usize,
        bytes: Cow<'a, [u8]>,
        zero_shift: u8,
    ) -> Result<Tensor<'a>, String> {
        let (stored, zeros) = (self.part("scales")?, self.part("qzeros")?);
        let [groups, columns] = stored.matrix()?;
        let values = repack::transpose(&stored.floats()?, groups);
        let mut scales = scheme.grid.scales(rows, cols, &[columns, groups], values)?;
        let [zero_groups, zero_words] = zeros.matrix()?;
        if (zero_groups, zero_words.saturating_mul(NIBBLES)) != (groups, rows) {
            return Err(format!("its qzeros are of shape {:?}, but {groups} x {rows} are wanted", zeros.shape));
        }
        let order = if scheme.layout == Layout::Awq { &AWQ_ORDER } else { &IN_ORDER };
        let words =
            Words { words: zeros.words()?, row_words: zero_words, groups, row_stride: 1, group_stride: zero_words };
        scales.zeros = Some(words.zeros(order, zero_shift));
        scales.group_of = self.order("g_idx", &scales)?;
        Ok(Tensor { rows, cols, format: Format::Int4, bytes, scales: Some(scales) })
    }

    /// The groups of columns where they are not simply in order.
    fn order(&self, part: &str, scales: &OwnedScales) -> Result<Option<Vec<u32>>, String> {
        let Some(stored) = self.optional(part) else { return Ok(None) };
        let groups: Vec<u32> = stored.words()?.iter().map(|word| u32::from_le_bytes(*word)).collect();
        // A file may carry the tensor without using it: all -1.
        let unused = groups.iter().all(|group| *group == u32::MAX);
        let in_order = groups.iter().enumerate().all(|(col, group)| *group as usize == col / scales.cols_per);
        Ok(if unused || in_order { None } else { Some(groups) })
    }
}

/// Whether elements of this type mean nothing without scales.
pub(super) fn is_code(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::I8)
}

impl Tensor<'_> {
    /// What [`Tensor::stored`] relies on.
    fn check(&self) -> Result<(), String> {
        let stored = Stored::new(self.rows, self.cols, self.format, &self.bytes).map_err(|error| error.to_string())?;
        let scales = self.scales.as_ref().map_or(Ok(stored), |scales| stored.with_scales(scales.borrow()));
        scales.map(drop).map_err(|error| error.to_string())
    }
}
