//! Values to blocks: the plain encoders, for tests and for the `quantize` command. The file formats' own rounding.

use thiserror::Error;

use crate::{Format, bf16, f16, f32, fp8_e4m3, int4, int8, q4_0, q4_1, q5_0, q5_1, q8_0};

/// Why values were not encoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantizeError {
    #[error("{len} values are not whole blocks of {format}, which are {block_len} long")]
    PartialBlock { format: Format, len: usize, block_len: usize },
    #[error("{0} can be read but not written")]
    NoEncoder(Format),
}

/// `values` as blocks of `format`. Rows of whole blocks may follow one another. The planar
/// formats are written as with a scale of 1.
pub fn quantize(format: Format, values: &[std::primitive::f32]) -> Result<Vec<u8>, QuantizeError> {
    let block_len = format.block_len();
    if !values.len().is_multiple_of(block_len) {
        return Err(QuantizeError::PartialBlock { format, len: values.len(), block_len });
    }
    Ok(match format {
        Format::F32 => f32::encode(values),
        Format::F16 => f16::encode(values),
        Format::Bf16 => bf16::encode(values),
        Format::Q4_0 => q4_0::encode(values),
        Format::Q4_1 => q4_1::encode(values),
        Format::Q5_0 => q5_0::encode(values),
        Format::Q5_1 => q5_1::encode(values),
        Format::Q8_0 => q8_0::encode(values),
        Format::Fp8E4m3 => fp8_e4m3::encode(values),
        Format::Int8 => int8::encode(values),
        Format::Int4 => int4::encode(values),
        Format::Q2K | Format::Q3K | Format::Q4K | Format::Q5K | Format::Q6K => {
            return Err(QuantizeError::NoEncoder(format));
        }
    })
}
