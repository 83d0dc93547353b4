//! Checkpoints that a test makes for itself.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

/// Writes matrices (name, rows and columns, values) to a safetensors file, as f32; one row is a vector.
///
/// # Panics
/// If a shape is not that of its values, or the file cannot be written.
pub fn write_f32(path: &Path, tensors: &[(String, [usize; 2], Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, [rows, cols], _), bytes)| {
        let shape = if *rows == 1 { vec![*cols] } else { vec![*rows, *cols] };
        (name, TensorView::new(Dtype::F32, shape, bytes).expect("values of this shape"))
    });
    let file = safetensors::serialize(views, None).expect("tensors can be written");
    std::fs::write(path, file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
