//! Messages as templates expect them: content in the form that the template takes, tool arguments as objects.

use serde_json::{Map, Value, json};

use crate::TextError;

/// How a template takes a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentForm {
    Text,
    Parts,
    Either,
}

/// Checked copies of `messages`, ready for a template.
pub(crate) fn prepare(messages: &[Value], form: ContentForm) -> Result<Vec<Value>, TextError> {
    messages.iter().enumerate().map(|(idx, message)| prepare_one(idx, message, form)).collect()
}

fn prepare_one(idx: usize, message: &Value, form: ContentForm) -> Result<Value, TextError> {
    let error = |reason: &str| TextError::Message { message: idx, reason: reason.to_owned() };
    let mut message = message.as_object().ok_or_else(|| error("a message must be an object"))?.clone();
    if !message.get("role").is_some_and(Value::is_string) {
        return Err(error("role must be a string"));
    }
    let content = match message.get("content") {
        None | Some(Value::Null) => Value::from(""),
        Some(Value::String(text)) => Value::from(text.as_str()),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().enumerate().map(|(part, value)| part_text(idx, part, value));
            in_form(texts.collect::<Result<Vec<_>, _>>()?, form)
        }
        Some(_) => return Err(error("content must be a string, an array of parts or null")),
    };
    let content = match content {
        Value::String(text) if form == ContentForm::Parts => json!([{"type": "text", "text": text}]),
        content => content,
    };
    message.insert("content".to_owned(), content);
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        calls.iter_mut().for_each(parse_arguments);
    }
    Ok(Value::Object(message))
}

fn part_text(message: usize, part: usize, value: &Value) -> Result<String, TextError> {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or(if value.is_string() { "text" } else { "unknown" });
    let text = match kind {
        "text" | "input_text" | "output_text" => value.get("text").unwrap_or(value).as_str(),
        "refusal" => value.get("refusal").and_then(Value::as_str),
        _ => return Err(TextError::ContentPart { message, part, kind: kind.to_owned() }),
    };
    let reason = || format!("content[{part}] has no text");
    text.map(str::to_owned).ok_or_else(|| TextError::Message { message, reason: reason() })
}

fn in_form(texts: Vec<String>, form: ContentForm) -> Value {
    match form {
        ContentForm::Text => Value::from(texts.join("\n")),
        ContentForm::Parts | ContentForm::Either => {
            texts.into_iter().map(|text| json!({"type": "text", "text": text})).collect()
        }
    }
}

/// The API sends arguments as a string of JSON; templates want to walk through them.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut("/function/arguments") else { return };
    let Some(text) = arguments.as_str() else { return };
    let text = if text.trim().is_empty() { "{}" } else { text };
    if let Ok(object) = serde_json::from_str::<Map<String, Value>>(text) {
        *arguments = Value::Object(object);
    }
}

/// Appends to the text of the last message.
pub(crate) fn append_to_last(messages: &mut [Value], suffix: &str) -> Result<(), TextError> {
    let missing = || TextError::Continue("the last message has no text to continue".to_owned());
    let content = messages.last_mut().and_then(|message| message.get_mut("content")).ok_or_else(missing)?;
    let content = match content {
        Value::Array(parts) => parts.last_mut().and_then(|part| part.get_mut("text")).ok_or_else(missing)?,
        content => content,
    };
    let text = content.as_str().ok_or_else(missing)?;
    *content = Value::from(format!("{text}{suffix}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_takes_the_form_of_the_template() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]);
        let as_parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let cases = [
            (ContentForm::Text, parts.clone(), json!("a\nb")),
            (ContentForm::Parts, parts.clone(), as_parts.clone()),
            (ContentForm::Either, parts, as_parts),
            (ContentForm::Text, json!("a"), json!("a")),
            (ContentForm::Parts, json!("a"), json!([{"type": "text", "text": "a"}])),
            (ContentForm::Either, json!(null), json!("")),
            (ContentForm::Text, json!([]), json!("")),
        ];
        for (form, content, expected) in cases {
            let prepared = prepare(&[json!({"role": "user", "content": content})], form).expect("fine");
            assert_eq!(prepared[0]["content"], expected, "{form:?} {content}");
        }
    }

    #[test]
    fn arguments_become_objects_where_they_are_objects() {
        for (arguments, expected) in [
            (json!("{\"b\": 1, \"a\": 2}"), json!({"b": 1, "a": 2})),
            (json!(""), json!({})),
            (json!("not json"), json!("not json")),
            (json!("[1]"), json!("[1]")),
            (json!({"a": 1}), json!({"a": 1})),
        ] {
            let message =
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]});
            let prepared = prepare(&[message], ContentForm::Text).expect("fine");
            assert_eq!(prepared[0]["tool_calls"][0]["function"]["arguments"], expected);
            assert_eq!(prepared[0]["content"], "");
        }
    }

    #[test]
    fn what_is_no_message_is_named_by_its_place() {
        for (message, part) in [
            (json!("hi"), "must be an object"),
            (json!({"content": "hi"}), "role must be"),
            (json!({"role": "user", "content": 7}), "content must be"),
            (json!({"role": "user", "content": [{"type": "image_url"}]}), "content[0]: this model takes text only"),
            (json!({"role": "user", "content": [{"type": "text"}]}), "content[0] has no text"),
        ] {
            let fine = json!({"role": "user", "content": "fine"});
            let error = prepare(&[fine, message], ContentForm::Text).expect_err("refused").to_string();
            assert!(error.starts_with("messages[1]") && error.contains(part), "{error}");
        }
    }
}
