//! GGUF, versions 2 and 3: a header of metadata and tensor directory, then aligned tensor data.
//!
//! ```text
//! "GGUF"  version: u32  num_tensors: u64  num_values: u64
//! values:  key: string, kind: u32, value
//! tensors: name: string, num_dims: u32, dims: u64 each (columns first), type: u32, offset: u64
//! padding to general.alignment, then the data that offsets count from
//! ```
//! Strings carry a u64 length; everything is little-endian. See the GGUF specification in the ggml repository.

mod config;
mod header;
mod names;
mod tensor_type;
mod value;
mod vocab;

use std::borrow::Cow;
use std::path::Path;

use crate::error::InFile;
use crate::mapping::Mapping;
use crate::{ModelConfig, Problem, Tensor, TextSource, WeightsError};
use header::{Header, TensorInfo};
use names::{Expert, RowOrder};

/// An open GGUF file.
pub(crate) struct Gguf {
    mapping: Mapping,
    header: Header,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let mapping = Mapping::open(path).in_file(path)?;
        let header = Header::parse(mapping.bytes()).in_file(path)?;
        Ok(Self { mapping, header })
    }

    pub fn config(&self) -> Result<ModelConfig, Problem> {
        config::read(&self.header, self.mapping.bytes())
    }

    pub fn text_source(&self) -> Result<TextSource, Problem> {
        vocab::read(&self.header, self.mapping.bytes())
    }

    pub fn has(&self, name: &str) -> bool {
        match names::expert(name) {
            Some(expert) => [expert.stack, expert.alone].iter().any(|name| self.header.tensors.contains_key(name)),
            None => self.info(name).is_ok(),
        }
    }

    pub fn tensor(&self, name: &str, config: &ModelConfig) -> Result<Tensor<'_>, Problem> {
        if let Some(expert) = names::expert(name) {
            return self.expert(name, &expert, config);
        }
        let info = self.info(name)?;
        let bytes = &self.mapping.bytes()[info.bytes.clone()];
        let bytes = match RowOrder::of(name, config) {
            RowOrder::Same => Cow::Borrowed(bytes),
            RowOrder::Interleaved { heads } => {
                let rows = if info.is_vector() { info.cols } else { info.rows };
                Cow::Owned(names::restore_halves(bytes, rows, heads).map_err(|reason| Problem::tensor(name, reason))?)
            }
        };
        Ok(Tensor { rows: info.rows, cols: info.cols, format: info.format, bytes, scales: None })
    }

    /// One matrix of a stack `[experts, rows, cols]`, or one that lies alone.
    fn expert(&self, name: &str, expert: &Expert, config: &ModelConfig) -> Result<Tensor<'_>, Problem> {
        let tensors = &self.header.tensors;
        let (info, idx, num) = match (tensors.get(&expert.stack), tensors.get(&expert.alone)) {
            (Some(info), _) => (info, expert.idx, config.moe.map_or(1, |moe| moe.num_experts)),
            (None, Some(info)) => (info, 0, 1),
            (None, None) => return Err(Problem::NoTensor(format!("{name} ({})", expert.stack))),
        };
        if idx >= num || !info.rows.is_multiple_of(num) {
            let reason = format!("its {} rows have no expert {idx} of {num}", info.rows);
            return Err(Problem::tensor(&expert.stack, reason));
        }
        let bytes = &self.mapping.bytes()[info.bytes.clone()];
        let len = bytes.len() / num;
        let bytes = Cow::Borrowed(&bytes[idx * len..][..len]);
        Ok(Tensor { rows: info.rows / num, cols: info.cols, format: info.format, bytes, scales: None })
    }

    pub fn total_bytes(&self) -> u64 {
        self.header.tensors.values().map(|info| info.bytes.len() as u64).sum()
    }

    pub fn release(&self) {
        self.mapping.release();
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, Problem> {
        let gguf_name = names::gguf_name(name);
        let info = gguf_name.as_ref().and_then(|gguf_name| self.header.tensors.get(gguf_name));
        info.ok_or_else(|| {
            Problem::NoTensor(match gguf_name {
                Some(gguf_name) => format!("{name} ({gguf_name})"),
                None => format!("{name}, a name that GGUF has no word for"),
            })
        })
    }
}
