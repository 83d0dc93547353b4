//! Folders of a config and a safetensors file, tensor by tensor.

use std::path::PathBuf;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// The tiny llama's config with this `quantization_config`.
pub fn config(method: Value) -> Value {
    let text = std::fs::read(super::tiny("llama").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["quantization_config"] = method;
    config
}

pub struct Folder {
    path: PathBuf,
    config: Value,
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Folder {
    /// A plain model without tensors.
    pub fn new(name: &str) -> Self {
        Self { path: super::folder(&format!("quantized-{name}")), config: config(json!(null)), tensors: Vec::new() }
    }

    pub fn config(self, method: Value) -> Self {
        Self { config: config(method), ..self }
    }

    pub fn tensor(mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        self.tensors.push((name.to_owned(), dtype, shape.to_vec(), bytes));
        self
    }

    pub fn write(self) -> PathBuf {
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor of its shape"))
        });
        let file = safetensors::serialize(views, None).unwrap();
        std::fs::write(self.path.join("model.safetensors"), file).unwrap();
        std::fs::write(self.path.join("config.json"), self.config.to_string()).unwrap();
        self.path
    }
}
