//! A conversation as clients write it, turned into what chat templates expect; knows no template.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, excerpt};
use crate::fields::{Fields, elements, given, read};

/// Reads `messages`: roles under the names that templates know, content as text.
pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let messages = fields.array("messages")?.ok_or_else(|| ApiError::missing("messages"))?;
    if messages.is_empty() {
        return Err(ApiError::invalid_value("messages", "it is empty; send at least one message"));
    }
    messages.into_iter().map(|(path, raw)| message(Fields::nested(path, raw)?)).collect()
}

fn message(mut fields: Fields<'_>) -> Result<Value, ApiError> {
    let role = role(&mut fields)?;
    let tool_calls = tool_calls(&mut fields)?;
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    message.insert("content".into(), content(&mut fields, role == "assistant")?);
    for name in ["name", "tool_call_id"] {
        if let Some(text) = fields.take::<String>(name)? {
            message.insert(name.into(), text.into());
        }
    }
    if let Some(calls) = tool_calls {
        message.insert("tool_calls".into(), calls.into());
    }
    if let Some(text) = reasoning(&mut fields)? {
        message.insert("reasoning".into(), text.clone().into());
        message.insert("reasoning_content".into(), text.into());
    }
    Ok(message.into())
}

fn role(fields: &mut Fields<'_>) -> Result<&'static str, ApiError> {
    let role: String = fields.required("role")?;
    Ok(match role.as_str() {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => "tool",
        other => {
            let reason =
                format!("'{}' is not one of developer, system, user, assistant, tool and function", excerpt(other));
            return Err(ApiError::invalid_value(&fields.param("role"), reason));
        }
    })
}

/// A string, or parts of text; which of the two a template gets is not decided here.
fn content(fields: &mut Fields<'_>, may_be_absent: bool) -> Result<Value, ApiError> {
    let param = fields.param("content");
    match fields.raw("content") {
        None if may_be_absent => Ok("".into()),
        None => Err(ApiError::missing(&param)),
        Some(raw) => match given(raw) {
            "a string" => Ok(read::<String>(&param, raw)?.into()),
            "an array" => parts(&param, raw),
            other => Err(ApiError::invalid_type(&param, "a string or an array of parts", other)),
        },
    }
}

fn parts(param: &str, raw: &RawValue) -> Result<Value, ApiError> {
    elements(param, raw)?
        .into_iter()
        .map(|(path, raw)| Ok(json!({"type": "text", "text": part(Fields::nested(path, raw)?)?})))
        .collect()
}

fn part(mut fields: Fields<'_>) -> Result<String, ApiError> {
    let kind: String = fields.required("type")?;
    match kind.as_str() {
        "text" => fields.required("text"),
        "refusal" => fields.required("refusal"),
        "image_url" | "input_audio" | "file" => {
            Err(ApiError::unsupported(&fields.param("type"), format!("'{kind}': this model takes text only")))
        }
        other => Err(ApiError::invalid_value(
            &fields.param("type"),
            format!("'{}' is not one of text and refusal", excerpt(other)),
        )),
    }
}

fn reasoning(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let reasoning = fields.take("reasoning")?;
    let content = fields.take("reasoning_content")?;
    Ok(reasoning.or(content))
}

/// Earlier calls of the assistant, as they are but for their outline.
fn tool_calls(fields: &mut Fields<'_>) -> Result<Option<Vec<Value>>, ApiError> {
    let Some(calls) = fields.array("tool_calls")? else { return Ok(None) };
    calls.into_iter().map(|(path, raw)| tool_call(&path, raw)).collect::<Result<_, _>>().map(Some)
}

fn tool_call(path: &str, raw: &RawValue) -> Result<Value, ApiError> {
    let call = Value::from(read::<Map<String, Value>>(path, raw)?);
    for (pointer, name) in [("/function/name", "function.name"), ("/function/arguments", "function.arguments")] {
        if !call.pointer(pointer).is_some_and(|value| value.is_string() || value.is_object()) {
            return Err(ApiError::missing(&format!("{path}.{name}")));
        }
    }
    Ok(call)
}

/// The text of a message that [`take`] made.
pub(crate) fn text(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}
