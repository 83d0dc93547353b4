//! One safetensors file. The `safetensors` crate checks that the tensors fill the file without gap or overlap and that
//! their shapes multiply out; here also that no name comes twice.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use quant::{Format, Stored};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::quantization::RawTensor;
use crate::error::InFile;
use crate::mapping::Mapping;
use crate::{Problem, Tensor, WeightsError};

/// The header's length comes first.
const LEN_BYTES: usize = 8;

pub(super) struct SafetensorsFile {
    path: PathBuf,
    mapping: Mapping,
    metadata: Metadata,
    data_start: usize,
}

impl SafetensorsFile {
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let mapping = Mapping::open(path).in_file(path)?;
        let (data_start, metadata) = read_header(mapping.bytes()).in_file(path)?;
        Ok(Self { path: path.to_owned(), mapping, metadata, data_start })
    }

    pub fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        let info = self.metadata.info(name).ok_or_else(|| Problem::NoTensor(name.to_owned()).at(&self.path))?;
        let data = &self.mapping.bytes()[self.data_start..];
        view(info, data).map_err(|reason| Problem::tensor(name, reason)).in_file(&self.path)
    }

    /// The tensor as it is, of whatever type.
    pub fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let info = self.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        let bytes = &self.mapping.bytes()[self.data_start..][start..end];
        Some(RawTensor { dtype: info.dtype, shape: &info.shape, bytes })
    }

    pub fn total_bytes(&self) -> u64 {
        self.metadata.data_len() as u64
    }

    pub fn release(&self) {
        self.mapping.release();
    }
}

/// Where the data starts, and what is in it.
fn read_header(file: &[u8]) -> Result<(usize, Metadata), Problem> {
    let (header_len, metadata) = SafeTensors::read_metadata(file)
        .map_err(|error| Problem::malformed(format!("is not a whole safetensors file: {error}")))?;
    let data_start = LEN_BYTES + header_len;
    let mut deserializer = serde_json::Deserializer::from_slice(&file[LEN_BYTES..data_start]);
    deserializer.deserialize_map(UniqueKeys).map_err(|error| Problem::malformed(format!("its header {error}")))?;
    Ok((data_start, metadata))
}

fn view<'a>(info: &TensorInfo, data: &'a [u8]) -> Result<Tensor<'a>, String> {
    let format = match info.dtype {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::Bf16,
        other => {
            return Err(format!(
                "its type {other:?} cannot be read without a quantization_config; F32, F16 and BF16 can"
            ));
        }
    };
    let (cols, leading) = info.shape.split_last().map_or((1, &[][..]), |(cols, leading)| (*cols, leading));
    let rows = leading.iter().product();
    let bytes = &data[info.data_offsets.0..info.data_offsets.1];
    Stored::new(rows, cols, format, bytes).map_err(|error| error.to_string())?;
    Ok(Tensor { rows, cols, format, bytes: Cow::Borrowed(bytes), scales: None })
}

/// Walks a JSON object and refuses a key that comes twice, of which a map would keep only the last.
struct UniqueKeys;

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if seen.contains(&name) {
                return Err(serde::de::Error::custom(format_args!("has the tensor {name} twice")));
            }
            seen.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data_len: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data_len]].concat()
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let tensor = |shape: &str, from: usize, to: usize| {
            format!(r#"{{"dtype":"BF16","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let twice = format!(r#"{{"a":{},"a":{}}}"#, tensor("[2]", 0, 4), tensor("[2]", 0, 4));
        let overlap = format!(r#"{{"a":{},"b":{}}}"#, tensor("[2]", 0, 4), tensor("[2]", 2, 6));
        let overflow = format!(r#"{{"a":{}}}"#, tensor("[4611686018427387904,8]", 0, 4));
        let short = format!(r#"{{"a":{}}}"#, tensor("[3]", 0, 4));
        for (bytes, message) in [
            (vec![], "header too small"),
            (vec![255; 8], "header too large"),
            (file("{}", 0)[..9].to_vec(), "invalid header length"),
            (file("[]", 0), "invalid JSON in header"),
            (file(&twice, 4), "has the tensor a twice"),
            (file(&overlap, 6), "invalid offset"),
            (file(&overflow, 4), "overflow"),
            (file(&short, 4), "invalid shape, data type, or offset"),
            (file(&format!(r#"{{"a":{}}}"#, tensor("[2]", 0, 4)), 3), "incomplete metadata"),
        ] {
            let error = read_header(&bytes).map(drop).expect_err(message).to_string();
            assert!(error.contains(message), "{error} does not say: {message}");
        }
    }

    #[test]
    fn shapes_fold_into_rows() {
        for (shape, rows, cols) in [("[]", 1, 1), ("[4]", 1, 4), ("[2,2]", 2, 2), ("[2,1,2]", 2, 2), ("[0,4]", 0, 4)] {
            let len = rows * cols * 2;
            let header = format!(r#"{{"a":{{"dtype":"F16","shape":{shape},"data_offsets":[0,{len}]}}}}"#);
            let bytes = file(&header, len);
            let (start, metadata) = read_header(&bytes).expect(shape);
            let tensor = view(metadata.info("a").expect("a tensor"), &bytes[start..]).expect(shape);
            assert_eq!((tensor.rows, tensor.cols), (rows, cols), "{shape}");
        }
    }
}
