//! A checkpoint's text side as plain data; the tokenizer and the chat template are made of it elsewhere.

/// What a checkpoint says about text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSource {
    pub tokenizer: TokenizerSource,
    /// The one named `default` first; often the only one.
    pub chat_templates: Vec<ChatTemplateSource>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource {
    /// `tokenizer.json` as it is, and what `tokenizer_config.json` adds.
    Json {
        tokenizer_json: Vec<u8>,
        special: SpecialTokens,
    },
    Gguf(GgufVocab),
}

/// A Jinja template and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplateSource {
    pub name: String,
    pub source: String,
}

/// The special tokens of `tokenizer_config.json`, by their text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
}

/// The `tokenizer.ggml.*` fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `gpt2` (byte-level BPE), `llama` (sentencepiece), ...
    pub model: String,
    /// The pre-tokenizer's name.
    pub pre: Option<String>,
    pub tokens: Vec<String>,
    /// Empty, or one per token.
    pub scores: Vec<f32>,
    /// Empty, or one per token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// `left right`, best first.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
}

impl TextSource {
    /// The template named `default`, or the only one.
    pub fn chat_template(&self) -> Option<&str> {
        let named = self.chat_templates.iter().find(|template| template.name == "default");
        named.or(self.chat_templates.first()).map(|template| template.source.as_str())
    }
}
