//! The same made-up weights as a safetensors file, for engines that cannot make them up.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::values::Shape;
use super::{Dummy, generate};
use crate::WeightsError;
use crate::error::InFile;

/// Written beside the weights where the model's folder has them.
const COMPANIONS: &[&str] =
    &["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

impl Dummy {
    /// Writes all tensors that a model asked for into the folder `out`: `model.safetensors` in bf16, and the files beside it.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn export(&self, out: &Path) -> Result<(), WeightsError> {
        fs::create_dir_all(out).in_file(out)?;
        for name in COMPANIONS.iter().filter(|name| self.folder.join(name).exists()) {
            fs::copy(self.folder.join(name), out.join(name)).in_file(&self.folder.join(name))?;
        }
        let path = out.join("model.safetensors");
        let tensors: Vec<Shape> = self.asked().values().cloned().collect();
        write(self.seed, &tensors, &path).in_file(&path)
    }
}

fn write(seed: u64, tensors: &[Shape], path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut header = header(tensors).to_string();
    // The data begins at a multiple of eight; the format pads with spaces.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for shape in tensors {
        file.write_all(&generate::encoded(seed, shape))?;
    }
    file.into_inner()?.sync_all()
}

/// Names, types, shapes and places, as the format wants them. Vectors have one dimension.
fn header(tensors: &[Shape]) -> Value {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut start = 0;
    for shape in tensors {
        let end = start + shape.bytes();
        let dimensions = if shape.rows == 1 { json!([shape.cols]) } else { json!([shape.rows, shape.cols]) };
        header
            .insert(shape.name.clone(), json!({ "dtype": "BF16", "shape": dimensions, "data_offsets": [start, end] }));
        start = end;
    }
    Value::Object(header)
}
