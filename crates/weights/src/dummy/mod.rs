//! Made-up weights: a model's shapes without its file, to measure what no download is needed for.
//!
//! A tensor's values depend on the seed, its name and the place in it alone, so that two machines, two engines and two
//! runs have the same ones. They are spread as a trained model's are, so that activations stay finite. [`shapes`] says
//! which tensors there are, [`generate`] what is in them.

mod export;
mod generate;
mod shapes;
mod vocab;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use quant::Format;

use crate::hf::{read_config, read_text};
use crate::{ModelConfig, Problem, Tensor, TextSource, WeightsError};

pub use export::export;
use shapes::Shape;

/// A folder's config and tokenizer, and tensors out of thin air.
pub(crate) struct Dummy {
    folder: PathBuf,
    seed: u64,
    tensors: Vec<Shape>,
    /// A tensor's name to an index in `tensors`.
    places: HashMap<String, usize>,
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
        let tensors = shapes::tensors(&config);
        let places = tensors.iter().enumerate().map(|(idx, tensor)| (tensor.name.clone(), idx)).collect();
        Ok((Self { folder: folder.to_owned(), seed, tensors, places }, config))
    }

    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        let place = self.places.get(name).ok_or_else(|| Problem::NoTensor(name.to_owned()).at(&self.folder))?;
        let shape = &self.tensors[*place];
        let bytes = Cow::Owned(generate::encoded(self.seed, shape));
        Ok(Tensor { rows: shape.rows, cols: shape.cols, format: Format::Bf16, bytes, scales: None })
    }

    /// The folder's tokenizer, or one of plain bytes where it has none.
    pub fn text_source(&self) -> Result<TextSource, WeightsError> {
        if self.folder.join("tokenizer.json").exists() { read_text(&self.folder) } else { Ok(vocab::bytes()) }
    }

    pub fn total_bytes(&self) -> u64 {
        self.tensors.iter().map(Shape::bytes).sum()
    }
}
