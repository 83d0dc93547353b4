//! A folder as the hub lays it out: `config.json`, safetensors (one file or shards with an index), tokenizer files.

mod config;
mod json;
mod quantization;
mod safetensors_file;
mod shards;
mod text;

use std::path::{Path, PathBuf};

use crate::error::InFile;
use crate::{ModelConfig, Problem, Tensor, TextSource, WeightsError};
use quantization::Quantization;
use shards::Shards;

pub(crate) use config::read as read_config;
pub(crate) use text::read as read_text;

/// What a module calls its matrix.
const WEIGHT: &str = ".weight";

/// An open folder.
pub(crate) struct HfFolder {
    folder: PathBuf,
    shards: Shards,
    quantization: Option<Quantization>,
}

impl HfFolder {
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        Self::with_shards(folder, Shards::open(folder)?)
    }

    /// One `.safetensors` file; its config and tokenizer are beside it.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        Self::with_shards(path.parent().unwrap_or(Path::new("")), Shards::open_file(path)?)
    }

    fn with_shards(folder: &Path, shards: Shards) -> Result<Self, WeightsError> {
        let quantization = config::read_quantization(folder)?;
        if let Some(quantization) = &quantization {
            quantization.check(&shards).in_file(&folder.join("config.json"))?;
        }
        Ok(Self { folder: folder.to_owned(), shards, quantization })
    }

    /// Whether weights are stored in codes.
    pub fn is_quantized(&self) -> bool {
        self.quantization.is_some()
    }

    pub fn config(&self) -> Result<ModelConfig, WeightsError> {
        config::read(&self.folder)
    }

    pub fn text_source(&self) -> Result<TextSource, WeightsError> {
        text::read(&self.folder)
    }

    pub fn has(&self, name: &str) -> bool {
        let coded = || name.strip_suffix(WEIGHT).is_some_and(|module| Quantization::has(&self.shards, module));
        self.shards.file_of(name).is_some() || self.is_quantized() && coded()
    }

    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        if let (Some(quantization), Some(module)) = (&self.quantization, name.strip_suffix(WEIGHT)) {
            let weight = quantization.weight(&self.shards, module);
            let weight = weight.map_err(|reason| Problem::tensor(name, reason)).in_file(&self.folder)?;
            if let Some(weight) = weight {
                return Ok(weight);
            }
        }
        match self.shards.file_of(name) {
            Some(file) => file.tensor(name),
            None => Err(Problem::NoTensor(name.to_owned()).at(&self.folder)),
        }
    }

    pub fn total_bytes(&self) -> u64 {
        self.shards.files().map(|file| file.total_bytes()).sum()
    }

    pub fn release(&self) {
        self.shards.files().for_each(|file| file.release());
    }
}
