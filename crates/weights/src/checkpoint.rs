//! An open checkpoint: its config, its tensors under one set of names, its text side.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use quant::{Format, OwnedScales, Scheme, Stored};

use crate::dummy::Dummy;
use crate::error::InFile;
use crate::gguf::Gguf;
use crate::hf::HfFolder;
use crate::size;
use crate::{ModelConfig, Problem, RopeConfig, TextSource, WeightsError};

/// A `.gguf` file, a `.safetensors` file beside its `config.json`, a folder as the hub lays it out, or weights made up.
///
/// Tensor names are those of Hugging Face (`model.layers.0.self_attn.q_proj.weight`) for every source, and so is the
/// order of rows.
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
    config: ModelConfig,
    quantization: Option<Scheme>,
}

enum Source {
    Gguf(Gguf),
    Hf(HfFolder),
    Dummy(Dummy),
}

/// A matrix `[rows, cols]`; a vector has one row, and the leading dimensions of an expert stack are folded into rows.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    pub rows: usize,
    pub cols: usize,
    pub format: Format,
    /// Borrowed from the file, unless its rows had to be put in order.
    pub bytes: Cow<'a, [u8]>,
    /// Of the planar formats.
    pub scales: Option<OwnedScales>,
}

impl Tensor<'_> {
    /// A view of it, whose length the reader checked.
    pub fn stored(&self) -> Stored<'_> {
        let scales = self.scales.as_ref().map(OwnedScales::borrow);
        Stored { rows: self.rows, cols: self.cols, format: self.format, bytes: &self.bytes, scales }
    }
}

impl Checkpoint {
    /// Maps the files and reads their headers; no tensor is touched.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let metadata = std::fs::metadata(path).in_file(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (source, config) = match extension {
            _ if metadata.is_dir() => hf(HfFolder::open(path)?)?,
            Some("gguf") => {
                let gguf = Gguf::open(path)?;
                let config = gguf.config().in_file(path)?;
                (Source::Gguf(gguf), config)
            }
            Some("safetensors") => hf(HfFolder::open_file(path)?)?,
            _ => {
                let sentence = "is neither a .gguf file, a .safetensors file nor a folder with a config.json";
                return Err(Problem::malformed(sentence).at(path));
            }
        };
        Ok(Self { path: path.to_owned(), source, config, quantization: None })
    }

    /// The model that `folder`'s `config.json` describes, with weights made up from `seed`; its weights' files are not looked at.
    pub fn dummy(folder: &Path, seed: u64) -> Result<Self, WeightsError> {
        let (dummy, config) = Dummy::open(folder, seed)?;
        Ok(Self { path: folder.to_owned(), source: Source::Dummy(dummy), config, quantization: None })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The same weights under another rotary embedding, to compare with a run that had it.
    #[must_use]
    pub fn with_rope(mut self, rope: RopeConfig) -> Self {
        self.config.rope = rope;
        self
    }

    /// The same weights, whose linear layers are to be quantized while they are loaded.
    ///
    /// # Errors
    /// If it holds codes that were made with care already.
    pub fn with_quantization(mut self, scheme: Scheme) -> Result<Self, WeightsError> {
        if !self.schemes().contains(&scheme) {
            let sentence = format!("the model is quantized already; load it without --quantization {scheme}");
            return Err(Problem::Unsupported(sentence).at(&self.path));
        }
        self.quantization = Some(scheme);
        Ok(self)
    }

    /// What the loader quantizes linear layers to; tensors come as they are stored.
    pub fn quantization(&self) -> Option<Scheme> {
        self.quantization
    }

    /// Writes the made-up tensors that were asked for so far into the folder `out`, for engines that must be given a file.
    ///
    /// # Errors
    /// If `out` cannot be written, or the weights come from a file already.
    pub fn export(&self, out: &Path) -> Result<(), WeightsError> {
        match &self.source {
            Source::Dummy(dummy) => dummy.export(out),
            Source::Gguf(_) | Source::Hf(_) => {
                Err(Problem::Unsupported("only made-up weights are written to a file".to_owned()).at(&self.path))
            }
        }
    }

    /// Whether there is a tensor of this Hugging Face name.
    pub fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Gguf(gguf) => gguf.has(name),
            Source::Hf(folder) => folder.has(name),
            Source::Dummy(dummy) => dummy.has(name),
        }
    }

    /// The tensor of this Hugging Face name, which a model expects to be `[rows, cols]`. What is made up is so; what a file says
    /// otherwise is the caller's to refuse.
    pub fn expected(&self, name: &str, rows: usize, cols: usize) -> Result<Tensor<'_>, WeightsError> {
        match &self.source {
            Source::Dummy(dummy) => dummy.tensor(name, rows, cols),
            Source::Gguf(_) | Source::Hf(_) => self.tensor(name),
        }
    }

    /// The tensor of this Hugging Face name; a made-up one only after it was [`expected`](Self::expected).
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        match &self.source {
            Source::Gguf(gguf) => gguf.tensor(name, &self.config).in_file(&self.path),
            Source::Hf(folder) => folder.tensor(name),
            Source::Dummy(dummy) => dummy.again(name),
        }
    }

    /// Reads what the tokenizer and the chat template are made of.
    pub fn text_source(&self) -> Result<TextSource, WeightsError> {
        match &self.source {
            Source::Gguf(gguf) => gguf.text_source().in_file(&self.path),
            Source::Hf(folder) => folder.text_source(),
            Source::Dummy(dummy) => dummy.text_source(),
        }
    }

    /// Bytes of all tensors in the file, or of those that were made up so far.
    pub fn total_bytes(&self) -> u64 {
        match &self.source {
            Source::Gguf(gguf) => gguf.total_bytes(),
            Source::Hf(folder) => folder.total_bytes(),
            Source::Dummy(dummy) => dummy.total_bytes(),
        }
    }

    /// Bytes that the weights take in memory at least; nothing is read for it.
    pub fn least_bytes(&self) -> u64 {
        self.least_bytes_by(self.quantization)
    }

    /// What it could be quantized to, where that takes less.
    pub fn smaller(&self) -> impl Iterator<Item = (Scheme, u64)> {
        let schemes = self.schemes().iter().map(|scheme| (*scheme, self.least_bytes_by(Some(*scheme))));
        schemes.filter(|(_, bytes)| *bytes < self.least_bytes())
    }

    fn schemes(&self) -> &'static [Scheme] {
        match &self.source {
            Source::Hf(folder) if folder.is_quantized() => &[],
            _ => &[Scheme::Fp8, Scheme::Int4],
        }
    }

    fn least_bytes_by(&self, scheme: Option<Scheme>) -> u64 {
        let stored = if let Source::Dummy(_) = self.source { None } else { Some(self.total_bytes()) };
        size::least_bytes(&self.config, stored, scheme)
    }

    /// Gives the file's resident pages back, once the weights are packed. Tensors stay readable.
    pub fn release(&self) {
        match &self.source {
            Source::Gguf(gguf) => gguf.release(),
            Source::Hf(folder) => folder.release(),
            // It was never held.
            Source::Dummy(_) => {}
        }
    }
}

fn hf(folder: HfFolder) -> Result<(Source, ModelConfig), WeightsError> {
    let config = folder.config()?;
    Ok((Source::Hf(folder), config))
}
