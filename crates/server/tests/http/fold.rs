//! What a stream adds up to, by the rules of the API and with none of the server's code.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The `choices` that a non-streamed answer would have.
pub fn choices(events: &[Value]) -> Value {
    let mut choices: BTreeMap<u64, Value> = BTreeMap::new();
    for choice in events.iter().flat_map(|event| event["choices"].as_array().expect("choices")) {
        let index = choice["index"].as_u64().expect("an index");
        match choices.get_mut(&index) {
            Some(whole) => add(whole, choice),
            None => {
                choices.insert(index, first(choice));
            }
        }
    }
    choices.into_values().collect()
}

fn first(choice: &Value) -> Value {
    let mut whole = choice.clone();
    if let Some(delta) = whole.as_object_mut().and_then(|choice| choice.remove("delta")) {
        assert_eq!(delta["role"], "assistant", "the first delta has the role");
        whole["message"] =
            json!({"role": "assistant", "content": delta["content"], "refusal": null, "annotations": []});
    }
    whole
}

fn add(whole: &mut Value, choice: &Value) {
    assert!(whole["finish_reason"].is_null(), "nothing follows a finish reason: {choice}");
    if let Some(delta) = choice.get("delta") {
        assert!(delta.get("role").is_none(), "the role comes once");
        append(&mut whole["message"]["content"], &delta["content"]);
    }
    for name in ["text", "logprobs", "token_ids", "finish_reason", "stop_reason"] {
        if let Some(more) = choice.get(name) {
            append(&mut whole[name], more);
        }
    }
}

fn append(value: &mut Value, more: &Value) {
    match (value, more) {
        (_, Value::Null) => {}
        (Value::String(text), Value::String(more)) => text.push_str(more),
        (Value::Array(items), Value::Array(more)) => items.extend_from_slice(more),
        (Value::Object(fields), Value::Object(more)) => {
            for (name, more) in more {
                append(&mut fields[name], more);
            }
        }
        (value, more) => *value = more.clone(),
    }
}
