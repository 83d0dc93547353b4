//! Values as Python prints them, since templates were written for a renderer in Python: `True`, `None`, `1e-05`, `['a']`.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, Output, State, escape_formatter};

/// How `{{ value }}` is written.
pub(super) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Seq | ValueKind::Map => {
            out.write_str(&to_text(value)).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// Python's `str(value)`.
pub(super) fn to_text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => repr(value, 0),
    }
}

const MAX_DEPTH: usize = 100;

/// Python's `repr(value)`.
fn repr(value: &Value, depth: usize) -> String {
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number => number(value),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Map if depth == MAX_DEPTH => "...".to_owned(),
        ValueKind::Seq => format!("[{}]", joined(value, |item| repr(item, depth + 1))),
        ValueKind::Map => {
            let entry = |key: &Value| {
                let value = value.get_item(key).unwrap_or(Value::UNDEFINED);
                format!("{}: {}", repr(key, depth + 1), repr(&value, depth + 1))
            };
            format!("{{{}}}", joined(value, entry))
        }
        _ => value.to_string(),
    }
}

fn joined(items: &Value, write: impl Fn(&Value) -> String) -> String {
    let items = items.try_iter().into_iter().flatten();
    items.map(|item| write(&item)).collect::<Vec<_>>().join(", ")
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            char if char == quote => out.extend(['\\', char]),
            char => out.push(char),
        }
    }
    out.push(quote);
    out
}

/// A number as Python prints it; whole numbers exactly.
pub(super) fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => float_repr(float),
        _ => value.to_string(),
    }
}

/// The shortest digits that read back as `value`; with an exponent below 1e-4 and from 1e16.
fn float_repr(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    match exponent {
        -4..16 => format!("{value:?}"),
        _ => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (100.0, "100.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (1e300, "1e+300"),
            (0.1, "0.1"),
        ] {
            assert_eq!(number(&Value::from(value)), expected);
        }
        assert_eq!(number(&Value::from(u64::MAX)), "18446744073709551615");
    }

    #[test]
    fn structures_are_written_as_python_writes_them() {
        let value = Value::from_pairs([
            ("b", Value::from(vec![Value::from(1), Value::from("it's"), Value::from(())])),
            ("a", Value::from(true)),
        ]);
        assert_eq!(to_text(&value), r#"{'b': [1, "it's", None], 'a': True}"#);
    }
}
