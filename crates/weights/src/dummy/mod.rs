//! Made-up weights: a model's shapes without its file, to measure what no download is needed for.
//!
//! A tensor is made when the model asks for it, in the shape that it asks for, so that every family that can be loaded can be made
//! up. Its values depend on the seed, its name and the place in it alone: two machines, two engines and two runs have the
//! same ones. They are spread as a trained model's are, so that activations stay finite: [`values`] says how, and
//! [`generate`] makes them.

mod export;
mod generate;
mod values;
mod vocab;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use quant::Format;

use crate::hf::{read_config, read_text};
use crate::{ModelConfig, Problem, Tensor, TextSource, WeightsError};

use values::Shape;

/// A folder's config and tokenizer, and tensors out of thin air.
pub(crate) struct Dummy {
    folder: PathBuf,
    seed: u64,
    config: ModelConfig,
    /// Whatever was asked for so far, by name.
    asked: Mutex<BTreeMap<String, Shape>>,
}

impl Dummy {
    /// Reads the folder's `config.json`; whatever else lies there is not looked at.
    pub fn open(folder: &Path, seed: u64) -> Result<(Self, ModelConfig), WeightsError> {
        if !folder.is_dir() {
            return Err(
                Problem::malformed("is no folder with a config.json, which dummy weights are made after").at(folder)
            );
        }
        let config = read_config(folder)?;
        let dummy = Self { folder: folder.to_owned(), seed, config: config.clone(), asked: Mutex::default() };
        Ok((dummy, config))
    }

    /// Whether such a model has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        values::is_there(&self.config, name)
    }

    /// The tensor `name`, which is `[rows, cols]` because the model says so.
    pub fn tensor(&self, name: &str, rows: usize, cols: usize) -> Result<Tensor<'_>, WeightsError> {
        if !self.has(name) {
            return Err(Problem::NoTensor(name.to_owned()).at(&self.folder));
        }
        let shape = Shape::new(&self.config, name, rows, cols);
        let bytes = Cow::Owned(generate::encoded(self.seed, &shape));
        self.asked().insert(name.to_owned(), shape);
        Ok(Tensor { rows, cols, format: Format::Bf16, bytes, scales: None })
    }

    /// The tensor that was asked for by this name before.
    pub fn again(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        let shape = self.asked().get(name).map(|shape| (shape.rows, shape.cols));
        let (rows, cols) = shape.ok_or_else(|| Problem::NoTensor(name.to_owned()).at(&self.folder))?;
        self.tensor(name, rows, cols)
    }

    /// The folder's tokenizer, or one of plain bytes where it has none.
    pub fn text_source(&self) -> Result<TextSource, WeightsError> {
        if self.folder.join("tokenizer.json").exists() { read_text(&self.folder) } else { Ok(vocab::bytes()) }
    }

    /// Of all tensors that were asked for.
    pub fn total_bytes(&self) -> u64 {
        self.asked().values().map(Shape::bytes).sum()
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Shape>> {
        self.asked.lock().expect("nothing panics that holds the list")
    }
}
