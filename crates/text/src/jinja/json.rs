//! `tojson` as Python's `json.dumps` writes it, since that is what models have seen: spaces after separators, keys in
//! their own order, no escaping of HTML or of characters beyond ASCII.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python;
use crate::guard::is_mark;

#[derive(Debug, Default)]
pub(super) struct Style {
    pub(super) indent: Option<usize>,
    /// Between items, and between key and value.
    pub(super) separators: Option<(String, String)>,
    pub(super) sort_keys: bool,
    pub(super) ensure_ascii: bool,
}

const MAX_DEPTH: usize = 200;

pub(super) fn write(value: &Value, style: &Style) -> Result<String, Error> {
    let item = if style.indent.is_some() { "," } else { ", " };
    let (item, key) = style.separators.as_ref().map_or((item, ": "), |(item, key)| (item, key));
    let mut writer = Writer { style, item, key, out: String::new(), depth: 0 };
    writer.value(value)?;
    Ok(writer.out)
}

struct Writer<'a> {
    style: &'a Style,
    item: &'a str,
    key: &'a str,
    out: String,
    depth: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&python::number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => self.map(value)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', &items, ']', Self::value)?;
            }
            kind => {
                let message = format!("tojson cannot write a value that is {kind}");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn map(&mut self, value: &Value) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.style.sort_keys {
            keys.sort();
        }
        self.list('{', &keys, '}', |writer, key| {
            writer.string(&python::to_text(key));
            writer.out.push_str(writer.key);
            writer.value(&value.get_item(key)?)
        })
    }

    fn list(
        &mut self,
        open: char,
        items: &[Value],
        close: char,
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson was given a value that is nested too deeply"));
        }
        self.out.push(open);
        self.depth += 1;
        for (idx, item) in items.iter().enumerate() {
            if idx > 0 {
                self.out.push_str(self.item);
            }
            self.line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.line();
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * self.depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..'\u{20}' => self.escape(char),
                // The guard's marks are taken out later, so they are not text to escape.
                '\u{7f}'.. if self.style.ensure_ascii && !is_mark(char) => self.escape(char),
                char => self.out.push(char),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, char: char) {
        for unit in char.encode_utf16(&mut [0; 2]) {
            write!(self.out, "\\u{unit:04x}").expect("writing to a string succeeds");
        }
    }
}
