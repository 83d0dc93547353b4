//! A tensor as the file has it, before it means anything.

use quant::{Format, Stored};
use safetensors::tensor::Dtype;

#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RawTensor<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    /// As many as the shape and the type say.
    pub bytes: &'a [u8],
}

impl<'a> RawTensor<'a> {
    /// Rows and columns.
    pub fn matrix(&self) -> Result<[usize; 2], String> {
        <[usize; 2]>::try_from(self.shape).map_err(|_| format!("its shape is {:?}, but a matrix is wanted", self.shape))
    }

    /// All values, of any float type.
    pub fn floats(&self) -> Result<Vec<f32>, String> {
        let format = match self.dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::Bf16,
            other => return Err(format!("its scales are of type {other:?}; F32, F16 and BF16 can be read")),
        };
        let len = self.bytes.len() / format.block_bytes();
        Ok(Stored::new(1, len, format, self.bytes).map_err(|error| error.to_string())?.dequantize())
    }

    /// All elements as words of 32 bits.
    pub fn words(&self) -> Result<&'a [[u8; 4]], String> {
        match self.dtype {
            Dtype::I32 | Dtype::U32 => Ok(self.bytes.as_chunks::<4>().0),
            other => Err(format!("its type is {other:?}, but words of 32 bits are wanted")),
        }
    }
}
