//! The header: metadata values and the tensor directory, every number in it checked against the file.

use std::collections::HashMap;
use std::ops::Range;

use quant::{Format, Stored};

use super::tensor_type;
use super::value::Value;
use crate::Problem;
use crate::bytes::Reader;

const MAX_DIMS: u32 = 4;
/// A name's length, its kind and one byte of value.
const MIN_VALUE_BYTES: usize = 8 + 4 + 1;
/// A name's length, no dimensions, its type and its offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

#[derive(Debug)]
pub(crate) struct Header {
    pub values: HashMap<String, Value>,
    pub tensors: HashMap<String, TensorInfo>,
}

/// One tensor: where its bytes are in the file, and what they mean.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorInfo {
    pub rows: usize,
    pub cols: usize,
    pub format: Format,
    pub bytes: Range<usize>,
    num_dims: u32,
}

impl TensorInfo {
    pub fn is_vector(&self) -> bool {
        self.num_dims <= 1
    }
}

/// A directory entry; its offset counts from where the data starts.
struct Entry {
    name: String,
    info: TensorInfo,
    offset: u64,
}

impl Header {
    pub fn parse(file: &[u8]) -> Result<Self, Problem> {
        let mut reader = Reader::new(file, 0);
        read_version(&mut reader)?;
        let num_tensors = reader.count(MIN_TENSOR_BYTES, "the number of tensors")?;
        let num_values = reader.count(MIN_VALUE_BYTES, "the number of metadata values")?;
        let values = read_values(&mut reader, num_values)?;
        let entries = (0..num_tensors).map(|_| Entry::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let alignment = alignment(&values)?;
        let data_start = reader.position().next_multiple_of(alignment);
        let tensors = place(entries, data_start, alignment, file.len())?;
        Ok(Self { values, tensors })
    }

    /// The value of `key` if it is there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The value of `key`, converted; an error if it is there and has another type.
    pub fn find<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let converted = convert(value);
        converted
            .map(Some)
            .ok_or_else(|| Problem::Config(format!("{key} is {}, but it must be {wanted}", value.describe())))
    }

    pub fn string(&self, key: &str) -> Result<Option<&str>, Problem> {
        self.find(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, Problem> {
        self.find(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub fn size(&self, key: &str) -> Result<Option<usize>, Problem> {
        self.find(key, "a number that is not negative", |value| value.as_unsigned()?.try_into().ok())
    }

    pub fn token(&self, key: &str) -> Result<Option<u32>, Problem> {
        self.find(key, "a token", |value| value.as_unsigned()?.try_into().ok())
    }

    pub fn float(&self, key: &str) -> Result<Option<f32>, Problem> {
        self.find(key, "a number", Value::as_float)
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<(), Problem> {
    let magic: [u8; 4] = reader.array("the magic number")?;
    if magic != *b"GGUF" {
        return Err(Problem::malformed("does not begin with GGUF, as a GGUF file does"));
    }
    match reader.u32("the version")? {
        2 | 3 => Ok(()),
        version if matches!(version.swap_bytes(), 1..=3) => {
            Err(Problem::Unsupported("is a big-endian GGUF file; only little-endian ones can be read".to_owned()))
        }
        version => Err(Problem::Unsupported(format!("is GGUF version {version}; versions 2 and 3 can be read"))),
    }
}

fn read_values(reader: &mut Reader<'_>, count: usize) -> Result<HashMap<String, Value>, Problem> {
    let mut values = HashMap::new();
    for _ in 0..count {
        let key = reader.string("a metadata key")?;
        let value = Value::read(reader, key)?;
        if values.insert(key.to_owned(), value).is_some() {
            return Err(Problem::malformed(format!("has the metadata value {key} twice")));
        }
    }
    Ok(values)
}

fn alignment(values: &HashMap<String, Value>) -> Result<usize, Problem> {
    let Some(value) = values.get("general.alignment") else { return Ok(32) };
    let alignment = value.as_unsigned().filter(|value| value.is_power_of_two() && *value <= 1 << 20);
    alignment.map(|value| value as usize).ok_or_else(|| {
        Problem::malformed(format!(
            "general.alignment is {}, but it must be a power of two up to 2^20",
            value.describe()
        ))
    })
}

impl Entry {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Problem> {
        let name = reader.string("a tensor's name")?.to_owned();
        let num_dims = reader.u32("a tensor's number of dimensions")?;
        if num_dims > MAX_DIMS {
            return Err(Problem::tensor(
                &name,
                format!("has {num_dims} dimensions, and {MAX_DIMS} are the most there can be"),
            ));
        }
        let (cols, rows) = Self::read_shape(reader, &name, num_dims)?;
        let format =
            tensor_type::format(reader.u32("a tensor's type")?).map_err(|reason| Problem::tensor(&name, reason))?;
        let offset = reader.u64("a tensor's offset")?;
        let len = Stored::byte_len(rows, cols, format).map_err(|error| Problem::tensor(&name, error))?;
        Ok(Self { name, info: TensorInfo { rows, cols, format, bytes: 0..len, num_dims }, offset })
    }

    /// Columns, and the product of all other dimensions.
    fn read_shape(reader: &mut Reader<'_>, name: &str, num_dims: u32) -> Result<(usize, usize), Problem> {
        let mut dims = [1usize; MAX_DIMS as usize];
        for dim in &mut dims[..num_dims as usize] {
            *dim = reader.u64("a tensor's dimensions")?.try_into().unwrap_or(usize::MAX);
        }
        let rows = dims[1..].iter().try_fold(1usize, |rows, dim| rows.checked_mul(*dim));
        let rows = rows.filter(|rows| *rows > 0 && dims[0] > 0);
        let rows = rows.ok_or_else(|| {
            Problem::tensor(name, format!("its shape {:?} is empty or overflows", &dims[..num_dims as usize]))
        })?;
        Ok((dims[0], rows))
    }

    /// Turns the offset into a range of the file.
    fn place(&mut self, data_start: usize, alignment: usize, file_len: usize) -> Result<(), Problem> {
        let wrong = |reason: String| Err(Problem::tensor(&self.name, reason));
        let (offset, len) = (self.offset, self.info.bytes.len());
        if !offset.is_multiple_of(alignment as u64) {
            return wrong(format!("its offset {offset} is not a multiple of the alignment {alignment}"));
        }
        let start = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(data_start));
        let range = start.and_then(|start| Some(start..start.checked_add(len)?));
        match range.filter(|range| range.end <= file_len) {
            Some(range) => self.info.bytes = range,
            None => {
                return wrong(format!(
                    "its {len} bytes at offset {offset} reach past the end of the file ({file_len} bytes)"
                ));
            }
        }
        Ok(())
    }
}

/// Finds each tensor's place; no two may have the same name or share a byte.
fn place(
    mut entries: Vec<Entry>,
    data_start: usize,
    alignment: usize,
    file_len: usize,
) -> Result<HashMap<String, TensorInfo>, Problem> {
    entries.iter_mut().try_for_each(|entry| entry.place(data_start, alignment, file_len))?;
    entries.sort_by_key(|entry| entry.info.bytes.start);
    for pair in entries.windows(2) {
        if pair[0].info.bytes.end > pair[1].info.bytes.start {
            return Err(Problem::tensor(&pair[1].name, format!("its bytes overlap those of tensor {}", pair[0].name)));
        }
    }
    let mut tensors = HashMap::with_capacity(entries.len());
    for Entry { name, info, .. } in entries {
        if tensors.contains_key(&name) {
            return Err(Problem::malformed(format!("has the tensor {name} twice")));
        }
        tensors.insert(name, info);
    }
    Ok(tensors)
}
