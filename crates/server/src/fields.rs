//! One JSON object taken apart field by field, so that every mistake names its parameter; knows no parameter itself.
//!
//! Values stay slices of the body until they are asked for by type: a body of a million empty lists costs its own
//! bytes and no tree. What nobody took is left over, and the caller decides what unknown fields mean.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The fields of one object that were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    /// Where the object is in the body: empty, or like `messages[3]`.
    path: String,
    entries: BTreeMap<String, &'a RawValue>,
}

/// More fields than any request of this API has; an object with more of them is noise.
const MAX_FIELDS: usize = 512;

impl<'a> Fields<'a> {
    /// Reads a body that must be one JSON object, nested no deeper than `max_depth`.
    pub fn parse(body: &'a [u8], max_depth: usize) -> Result<Self, ApiError> {
        let text = std::str::from_utf8(body).map_err(|_| ApiError::malformed("it is not UTF-8"))?;
        if depth(text) > max_depth {
            return Err(ApiError::malformed(format!("it nests deeper than {max_depth} levels")));
        }
        let Entries(entries) = serde_json::from_str(text).map_err(ApiError::malformed)?;
        Ok(Self { path: String::new(), entries })
    }

    /// Reads an object inside the body.
    pub fn nested(path: String, raw: &'a RawValue) -> Result<Self, ApiError> {
        if !raw.get().starts_with('{') {
            return Err(ApiError::invalid_type(&path, "an object", given(raw)));
        }
        let Entries(entries) =
            serde_json::from_str(raw.get()).map_err(|error| ApiError::invalid_value(&path, without_place(&error)))?;
        Ok(Self { path, entries })
    }

    /// The full name of a field, as errors say it.
    pub fn param(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The field as it was sent. An explicit null is an absent field, as in OpenAI's own API.
    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        self.entries.remove(name).filter(|raw| raw.get() != "null")
    }

    pub fn take<T: Json>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.raw(name).map(|raw| read(&self.param(name), raw)).transpose()
    }

    pub fn required<T: Json>(&mut self, name: &str) -> Result<T, ApiError> {
        self.take(name)?.ok_or_else(|| ApiError::missing(&self.param(name)))
    }

    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, ApiError> {
        Ok(self.take(name)?.unwrap_or(default))
    }

    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take::<i64>(name)? else { return Ok(None) };
        if !range.contains(&value) {
            return Err(self.out_of_range(name, &value, range.start(), range.end()));
        }
        Ok(Some(value))
    }

    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take::<f64>(name)? else { return Ok(None) };
        if !range.contains(&value) {
            return Err(self.out_of_range(name, &value, range.start(), range.end()));
        }
        Ok(Some(value as f32))
    }

    fn out_of_range(
        &self,
        name: &str,
        value: &dyn fmt::Display,
        low: &dyn fmt::Display,
        high: &dyn fmt::Display,
    ) -> ApiError {
        ApiError::invalid_value(&self.param(name), format!("{value} is outside {low} to {high}"))
    }

    /// An array's elements, each with its own path.
    pub fn array(&mut self, name: &str) -> Result<Option<Vec<(String, &'a RawValue)>>, ApiError> {
        let param = self.param(name);
        self.raw(name).map(|raw| elements(&param, raw)).transpose()
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        let param = self.param(name);
        self.raw(name).map(|raw| Fields::nested(param, raw)).transpose()
    }

    /// Takes everything, in the order of the names.
    pub fn into_entries(self) -> impl Iterator<Item = (String, &'a RawValue)> {
        self.entries.into_iter()
    }
}

/// An array's elements, each with its own path.
pub(crate) fn elements<'a>(param: &str, raw: &'a RawValue) -> Result<Vec<(String, &'a RawValue)>, ApiError> {
    if !raw.get().starts_with('[') {
        return Err(ApiError::invalid_type(param, "an array", given(raw)));
    }
    let items: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|error| ApiError::invalid_value(param, without_place(&error)))?;
    Ok(items.into_iter().enumerate().map(|(idx, item)| (format!("{param}[{idx}]"), item)).collect())
}

/// Types that fields have, with the words that an error uses for them.
pub(crate) trait Json: DeserializeOwned {
    const EXPECTED: &'static str;
    /// The characters that such a value may begin with.
    const BEGINS: &'static str;
}

macro_rules! json {
    ($($kind:ty, $expected:literal, $begins:literal;)*) => {
        $(impl Json for $kind {
            const EXPECTED: &'static str = $expected;
            const BEGINS: &'static str = $begins;
        })*
    };
}

json! {
    bool, "a boolean", "tf";
    i64, "an integer", "-0123456789";
    f64, "a number", "-0123456789";
    String, "a string", "\"";
    Vec<u32>, "an array of token ids", "[";
    Vec<String>, "an array of strings", "[";
    Map<String, Value>, "an object", "{";
    BTreeMap<String, f64>, "an object of numbers", "{";
}

/// Reads a value by its type.
pub(crate) fn read<T: Json>(param: &str, raw: &RawValue) -> Result<T, ApiError> {
    if !raw.get().starts_with(|first| T::BEGINS.contains(first)) {
        return Err(ApiError::invalid_type(param, T::EXPECTED, given(raw)));
    }
    serde_json::from_str(raw.get()).map_err(|error| match error.classify() {
        serde_json::error::Category::Data if !raw.get().starts_with('"') => {
            ApiError::invalid_type(param, T::EXPECTED, &without_place(&error))
        }
        _ => ApiError::invalid_value(param, without_place(&error)),
    })
}

/// What kind of value this is, in words.
pub(crate) fn given(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes()[0] {
        b'"' => "a string",
        b'{' => "an object",
        b'[' => "an array",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// The reason alone: line and column would be those of a slice that the client never saw.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// How deep arrays and objects nest, at most; strings do not count.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

struct Entries<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    entries.insert(name, value);
                    if entries.len() > MAX_FIELDS {
                        return Err(A::Error::custom(format!("an object has more than {MAX_FIELDS} fields")));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
