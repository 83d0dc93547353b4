//! Answers of the reference tools.

use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

/// `golden.safetensors` of a tiny checkpoint, made by HF transformers in f32.
pub struct TinyGolden {
    /// Two prompts of 40 tokens.
    pub input_ids: Vec<Vec<u32>>,
    /// [2, 40, V], row-major.
    pub logits: Vec<f32>,
    /// 12 given tokens, then 24 that greedy decoding adds.
    pub greedy: Vec<u32>,
}

impl TinyGolden {
    /// # Panics
    /// If the fixture is missing or damaged.
    pub fn load(folder: &Path) -> Self {
        let path = folder.join("golden.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("the golden file is safetensors");
        let words = |name: &str| -> Vec<[u8; 4]> {
            let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            tensor.data().chunks_exact(4).map(|word| word.try_into().expect("four bytes")).collect()
        };
        let ids = |name: &str| -> Vec<u32> { words(name).into_iter().map(u32::from_le_bytes).collect() };
        Self {
            input_ids: ids("input_ids").chunks(40).map(<[_]>::to_vec).collect(),
            logits: words("logits").into_iter().map(f32::from_le_bytes).collect(),
            greedy: ids("greedy"),
        }
    }
}

/// `tests/golden/smollm2.json`: greedy chats and a text's NLL on the default model's dequantized weights.
#[derive(Deserialize)]
pub struct TextGolden {
    /// Mean negative log-likelihood, in nats, of `gpl3_ids` but the first.
    pub nll_gpl3_512: f64,
    pub gpl3_ids: Vec<u32>,
    pub rows: Vec<ChatGolden>,
}

/// One chat, answered greedily.
#[derive(Deserialize)]
pub struct ChatGolden {
    pub messages: Vec<Value>,
    pub prompt: String,
    pub prompt_ids: Vec<u32>,
    pub greedy_ids: Vec<u32>,
    /// Distance between the two best logits at each step.
    pub margins: Vec<f32>,
    pub text: String,
}

impl TextGolden {
    /// # Panics
    /// If the fixture is missing or damaged.
    pub fn load() -> Self {
        let path = crate::root().join("tests/golden/smollm2.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).expect("the golden file has the expected fields")
    }
}

impl ChatGolden {
    /// Steps up to the first whose margin is below `margin`: two correct implementations may part there.
    pub fn decided_steps(&self, margin: f32) -> usize {
        self.margins.iter().position(|&m| m < margin).unwrap_or(self.greedy_ids.len())
    }
}
