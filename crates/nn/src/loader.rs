//! Brings tensors from a checkpoint to a backend, by name.

use quant::{NotFinite, Stored};
use tensor::{Backend, LoadError, Role};
use thiserror::Error;
use weights::{Checkpoint, Tensor, WeightsError};

use crate::quantize::{is_quantizable, quantize};

/// A checkpoint on one side, a backend on the other.
pub struct Loader<'a, B: Backend> {
    pub checkpoint: &'a Checkpoint,
    pub backend: &'a mut B,
}

/// A layer that could not be loaded.
#[derive(Debug, Error)]
pub enum NnError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("{name}: {error}")]
    Pack { name: String, error: LoadError },
    #[error("{name} cannot be quantized: {error}")]
    Quantize { name: String, error: NotFinite },
    #[error("{name} is {value}, but a scale is a positive number")]
    Scale { name: String, value: f32 },
    #[error("{name} is {rows} x {cols}, but the config asks for {expected_rows} x {expected_cols}")]
    Shape { name: String, rows: usize, cols: usize, expected_rows: usize, expected_cols: usize },
}

impl<B: Backend> Loader<'_, B> {
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(name)
    }

    /// Packs `parts`, each (name, rows) with `cols` columns, stacked along the output.
    pub fn weight(&mut self, parts: &[(String, usize)], cols: usize, role: Role) -> Result<B::Weight, NnError> {
        let tensors = parts
            .iter()
            .map(|(name, rows)| part(self.checkpoint, name, *rows, cols, role))
            .collect::<Result<Vec<Tensor<'_>>, NnError>>()?;
        let stored: Vec<Stored<'_>> = tensors.iter().map(Tensor::stored).collect();
        self.backend.pack(&stored, role).map_err(|error| NnError::Pack { name: parts[0].0.clone(), error })
    }

    /// A vector of `len` values, as f32.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<B::Buf, NnError> {
        let values = expected(self.checkpoint, name, 1, len)?.stored().dequantize();
        self.backend.vector(&values).map_err(|error| NnError::Pack { name: name.to_owned(), error })
    }

    /// A number that is a tensor of its own; `None` where the checkpoint has none of this name.
    pub fn scalar(&self, name: &str) -> Result<Option<f32>, NnError> {
        if !self.has(name) {
            return Ok(None);
        }
        let values = expected(self.checkpoint, name, 1, 1)?.stored().dequantize();
        match values[0] {
            value if value.is_finite() && value > 0.0 => Ok(Some(value)),
            value => Err(NnError::Scale { name: name.to_owned(), value }),
        }
    }

    /// Vectors stacked to one, as fused layers want their biases; `None` where the checkpoint has no such bias.
    pub fn biases(&mut self, parts: &[(String, usize)]) -> Result<Option<B::Buf>, NnError> {
        if !parts.iter().any(|(name, _)| self.has(name)) {
            return Ok(None);
        }
        let mut values = Vec::new();
        for (name, len) in parts {
            values.extend(expected(self.checkpoint, name, 1, *len)?.stored().dequantize());
        }
        let packed = self.backend.vector(&values);
        packed.map(Some).map_err(|error| NnError::Pack { name: parts[0].0.clone(), error })
    }
}

/// A matrix as it is stored, or quantized if that was asked for.
fn part<'a>(
    checkpoint: &'a Checkpoint,
    name: &str,
    rows: usize,
    cols: usize,
    role: Role,
) -> Result<Tensor<'a>, NnError> {
    let tensor = expected(checkpoint, name, rows, cols)?;
    match checkpoint.quantization() {
        Some(scheme) if is_quantizable(name, role) => {
            quantize(scheme, tensor).map_err(|error| NnError::Quantize { name: name.to_owned(), error })
        }
        _ => Ok(tensor),
    }
}

fn expected<'a>(checkpoint: &'a Checkpoint, name: &str, rows: usize, cols: usize) -> Result<Tensor<'a>, NnError> {
    let tensor = checkpoint.expected(name, rows, cols)?;
    let stored = tensor.stored();
    if (stored.rows, stored.cols) == (rows, cols) {
        return Ok(tensor);
    }
    Err(NnError::Shape {
        name: name.to_owned(),
        rows: stored.rows,
        cols: stored.cols,
        expected_rows: rows,
        expected_cols: cols,
    })
}
