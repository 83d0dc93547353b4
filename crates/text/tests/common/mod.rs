//! Fixtures of this crate's tests.

#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use text::{GgufVocab, SpecialTokens, TextModel, Tokenizer};

pub fn fixture(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn json(path: &str) -> Value {
    serde_json::from_slice(&fixture(path)).expect("the fixture is JSON")
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().expect("an array").iter().map(|text| text.as_str().expect("a string").to_owned()).collect()
}

/// The vocabulary of SmolLM2-135M-Instruct as its GGUF file has it.
pub fn smollm2_vocab() -> (GgufVocab, String) {
    let fields = json("golden/smollm2-tokenizer.json");
    let id = |name: &str| fields[name].as_u64().map(|id| id as u32);
    let tokens = strings(&fields["tokens"]);
    let mut token_types = vec![1; tokens.len()];
    for control in fields["control"].as_array().expect("an array") {
        token_types[control.as_u64().expect("an id") as usize] = 3;
    }
    let vocab = GgufVocab {
        model: fields["model"].as_str().expect("a name").to_owned(),
        pre: fields["pre"].as_str().map(str::to_owned),
        merges: strings(&fields["merges"]),
        bos: id("bos"),
        eos: id("eos"),
        unk: id("unk"),
        add_bos: fields["add_bos"].as_bool(),
        tokens,
        token_types,
        ..GgufVocab::default()
    };
    (vocab, fields["chat_template"].as_str().expect("a template").to_owned())
}

pub fn smollm2() -> &'static TextModel {
    static MODEL: OnceLock<TextModel> = OnceLock::new();
    MODEL.get_or_init(|| {
        let (vocab, template) = smollm2_vocab();
        let tokenizer = Tokenizer::from_gguf(vocab).expect("a tokenizer");
        TextModel::new(tokenizer, Some(&template), &[]).expect("a model")
    })
}

pub fn tiny_llama() -> Arc<Tokenizer> {
    let special = SpecialTokens { bos: Some("<bos>".into()), eos: Some("<eos>".into()), additional: Vec::new() };
    Arc::new(Tokenizer::from_json(&fixture("tiny/llama/tokenizer.json"), special).expect("a tokenizer"))
}

/// Pseudo-random numbers below `bound`.
pub fn random(seed: &mut u64, bound: usize) -> usize {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) as usize % bound
}
