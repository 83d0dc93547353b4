//! Checkpoints that a test makes for itself.

use std::fs;
use std::path::Path;

use half::bf16;
use safetensors::SafeTensors;
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
    fs::write(path, file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Writes a copy of the checkpoint in folder `from` to folder `to`, with its bf16 tensors in f32.
///
/// # Panics
/// If `from` is no checkpoint in one file, or `to` cannot be written.
pub fn widen(from: &Path, to: &Path) {
    let bytes = fs::read(from.join("model.safetensors")).expect("one file of tensors");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let tensors: Vec<_> = (file.iter())
        .map(|(name, tensor)| {
            let halves = tensor.data().as_chunks::<2>().0;
            let (dtype, data) = match tensor.dtype() {
                Dtype::BF16 => (
                    Dtype::F32,
                    halves.iter().flat_map(|&half| bf16::from_le_bytes(half).to_f32().to_le_bytes()).collect(),
                ),
                other => (other, tensor.data().to_vec()),
            };
            (name, dtype, tensor.shape().to_vec(), data)
        })
        .collect();
    let views = (tensors.iter()).map(|(name, dtype, shape, data): &(_, _, _, Vec<u8>)| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("the same shape"))
    });
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    fs::write(to.join("model.safetensors"), safetensors::serialize(views, None).expect("tensors can be written"))
        .unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    fs::copy(from.join("config.json"), to.join("config.json")).expect("a config");
}
