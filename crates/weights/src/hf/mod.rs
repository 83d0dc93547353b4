//! A folder as the hub lays it out: `config.json`, safetensors (one file or shards with an index), tokenizer files.

mod config;
mod json;
mod safetensors_file;
mod shards;
mod text;

use std::path::{Path, PathBuf};

use crate::{ModelConfig, Problem, Tensor, TextSource, WeightsError};
use shards::Shards;

/// An open folder.
pub(crate) struct HfFolder {
    folder: PathBuf,
    shards: Shards,
}

impl HfFolder {
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        Ok(Self { folder: folder.to_owned(), shards: Shards::open(folder)? })
    }

    /// One `.safetensors` file; its config and tokenizer are beside it.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { folder, shards: Shards::open_file(path)? })
    }

    pub fn config(&self) -> Result<ModelConfig, WeightsError> {
        config::read(&self.folder)
    }

    pub fn text_source(&self) -> Result<TextSource, WeightsError> {
        text::read(&self.folder)
    }

    pub fn has(&self, name: &str) -> bool {
        self.shards.file_of(name).is_some()
    }

    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
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
