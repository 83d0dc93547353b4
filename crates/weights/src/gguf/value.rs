//! A metadata value. Scalars are read at once; an array stays in the file until someone asks for its items.

use crate::Problem;
use crate::bytes::Reader;

/// Arrays in arrays deeper than this are refused: no known file has any.
const MAX_DEPTH: u32 = 4;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// `count` items of `kind`, from byte `start` of the file on; all of them are there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Array {
    kind: Kind,
    count: usize,
    start: usize,
}

/// A value's type by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Number { bytes: u64, number: Number },
    Bool,
    String,
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Unsigned,
    Signed,
    Float,
}

impl Kind {
    fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self, Problem> {
        let number = |bytes, number| Ok(Self::Number { bytes, number });
        match reader.u32("the type of a value")? {
            0 => number(1, Number::Unsigned),
            1 => number(1, Number::Signed),
            2 => number(2, Number::Unsigned),
            3 => number(2, Number::Signed),
            4 => number(4, Number::Unsigned),
            5 => number(4, Number::Signed),
            6 => number(4, Number::Float),
            7 => Ok(Self::Bool),
            8 => Ok(Self::String),
            9 => Ok(Self::Array),
            10 => number(8, Number::Unsigned),
            11 => number(8, Number::Signed),
            12 => number(8, Number::Float),
            other => Err(Problem::malformed(format!("the value {key} has type {other}, which does not exist"))),
        }
    }

    /// The fewest bytes that one item takes.
    fn min_bytes(self) -> usize {
        match self {
            Self::Number { bytes, .. } => bytes as usize,
            Self::Bool => 1,
            Self::String => 8,
            Self::Array => 12,
        }
    }
}

impl Value {
    pub fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self, Problem> {
        let kind = Kind::read(reader, key)?;
        Self::read_kind(kind, reader, key, 0)
    }

    fn read_kind(kind: Kind, reader: &mut Reader<'_>, key: &str, depth: u32) -> Result<Self, Problem> {
        Ok(match kind {
            Kind::Number { bytes, number } => read_number(reader.take(bytes, key)?, number),
            Kind::Bool => Self::Bool(reader.take(1, key)?[0] != 0),
            Kind::String => Self::String(reader.string(key)?.to_owned()),
            Kind::Array => Self::Array(Array::skip(reader, key, depth + 1)?),
        })
    }

    /// What the value is, for a message.
    pub fn describe(&self) -> String {
        match self {
            Self::Unsigned(value) => value.to_string(),
            Self::Signed(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::String(_) => "a string".to_owned(),
            Self::Array(array) => format!("an array of {}", array.count),
        }
    }

    pub fn as_unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f32> {
        match self {
            Self::Float(value) => Some(*value as f32),
            Self::Unsigned(value) => Some(*value as f32),
            Self::Signed(value) => Some(*value as f32),
            _ => None,
        }
    }
}

/// Little-endian, in as many bytes as there are.
fn read_number(bytes: &[u8], number: Number) -> Value {
    let mut wide = [0u8; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    let unused_bits = 64 - 8 * bytes.len() as u32;
    match number {
        Number::Unsigned => Value::Unsigned(unsigned),
        Number::Signed => Value::Signed((unsigned << unused_bits) as i64 >> unused_bits),
        Number::Float if bytes.len() == 4 => Value::Float(f32::from_bits(unsigned as u32).into()),
        Number::Float => Value::Float(f64::from_bits(unsigned)),
    }
}

impl Array {
    /// Reads past an array, checking that it is whole.
    fn skip(reader: &mut Reader<'_>, key: &str, depth: u32) -> Result<Self, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::malformed(format!("the value {key} nests arrays more than {MAX_DEPTH} deep")));
        }
        let kind = Kind::read(reader, key)?;
        let count = reader.count(kind.min_bytes(), &format!("the length of {key}"))?;
        let start = reader.position();
        match kind {
            Kind::String => (0..count).try_for_each(|_| reader.string(key).map(drop))?,
            Kind::Array => (0..count).try_for_each(|_| Self::skip(reader, key, depth + 1).map(drop))?,
            Kind::Bool | Kind::Number { .. } => {
                reader.take((count * kind.min_bytes()) as u64, key)?;
            }
        }
        Ok(Self { kind, count, start })
    }

    pub fn strings(&self, file: &[u8], key: &str) -> Result<Vec<String>, Problem> {
        if self.kind != Kind::String {
            return Err(Problem::Config(format!("{key} must be an array of strings")));
        }
        let mut reader = Reader::new(file, self.start);
        (0..self.count).map(|_| reader.string(key).map(str::to_owned)).collect()
    }

    /// The items as scalars, each converted by `convert`.
    pub fn scalars<T>(&self, file: &[u8], key: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, Problem> {
        let wrong = || Problem::Config(format!("{key} must be an array of numbers"));
        if !matches!(self.kind, Kind::Number { .. }) {
            return Err(wrong());
        }
        let mut reader = Reader::new(file, self.start);
        (0..self.count).map(|_| convert(&Value::read_kind(self.kind, &mut reader, key, 0)?).ok_or_else(wrong)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_width_and_sign() {
        let cases: [(u32, &[u8], Value); 6] = [
            (0, &[200], Value::Unsigned(200)),
            (1, &[200], Value::Signed(-56)),
            (3, &[0xff, 0xff], Value::Signed(-1)),
            (6, &1.5f32.to_le_bytes(), Value::Float(1.5)),
            (11, &(-7i64).to_le_bytes(), Value::Signed(-7)),
            (12, &(-2.5f64).to_le_bytes(), Value::Float(-2.5)),
        ];
        for (kind, bytes, expected) in cases {
            let file = [&kind.to_le_bytes(), bytes].concat();
            assert_eq!(Value::read(&mut Reader::new(&file, 0), "key").expect("a number"), expected);
        }
    }
}
