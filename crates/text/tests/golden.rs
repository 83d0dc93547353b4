//! SmolLM2-135M-Instruct against the reference tokenizer and template renderer.

#![allow(clippy::unwrap_used)]

mod common;

use common::{json, smollm2};
use serde_json::{Map, Value};
use text::ChatInput;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn chats_render_encode_and_decode_as_the_reference_does() {
    let (model, golden) = (smollm2(), json("golden/smollm2.json"));
    let rows = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for row in rows {
        let input = ChatInput {
            messages: row["messages"].as_array().unwrap(),
            tools: &[],
            add_generation_prompt: true,
            continue_final_message: false,
            kwargs: &Map::new(),
        };
        let rendered = model.template.as_ref().unwrap().render(&input).unwrap();
        assert_eq!(rendered.text(), row["prompt"].as_str().unwrap());
        let prompt = model.tokenizer.encode_rendered(&rendered).unwrap();
        assert_eq!(prompt, ids(&row["prompt_ids"]), "{}", rendered.text());
        assert_eq!(model.tokenizer.encode(&rendered.text(), true).unwrap(), prompt, "nothing is added around a text");
        assert_eq!(model.tokenizer.decode(&prompt, false), rendered.text());
        assert_eq!(model.tokenizer.decode(&ids(&row["greedy_ids"]), true), row["text"].as_str().unwrap());
    }
    assert_eq!((model.bos_token_id, model.eos_token_ids.as_slice()), (Some(1), [2].as_slice()));
}

#[test]
fn a_long_text_encodes_as_the_reference_does() {
    let Ok(text) = std::fs::read_to_string("/usr/share/common-licenses/GPL-3") else {
        eprintln!("SKIPPED a_long_text_encodes_as_the_reference_does: /usr/share/common-licenses/GPL-3 is not here");
        return;
    };
    let (model, golden) = (smollm2(), json("golden/smollm2.json"));
    let tokens = model.tokenizer.encode(&text, false).unwrap();
    assert_eq!(tokens[..512], ids(&golden["gpl3_ids"]));
    assert_eq!(model.tokenizer.decode(&tokens, true), text);
    assert!(tokens.len() >= text.len() / model.tokenizer.max_token_bytes());
}
