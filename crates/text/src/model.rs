//! A model's text side as one value.

use std::sync::Arc;

use crate::{ChatTemplate, TextError, Tokenizer};

/// Tokenizer, chat template and end tokens of one model.
#[derive(Debug)]
pub struct TextModel {
    pub tokenizer: Arc<Tokenizer>,
    /// Base models have none.
    pub template: Option<ChatTemplate>,
    pub bos_token_id: Option<u32>,
    /// Sampling one of these ends a sequence; sorted.
    pub eos_token_ids: Vec<u32>,
}

impl TextModel {
    /// `eos_token_ids` are those of the model's configuration; the tokenizer's own are added.
    pub fn new(tokenizer: Tokenizer, template: Option<&str>, eos_token_ids: &[u32]) -> Result<Self, TextError> {
        let text = |token: Option<u32>| token.map(|token| tokenizer.token_text(token)).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.end_tokens().first().copied()));
        let template = template.map(|source| ChatTemplate::new(source, &bos, &eos)).transpose()?;
        let mut ends = [eos_token_ids, tokenizer.end_tokens()].concat();
        ends.sort_unstable();
        ends.dedup();
        Ok(Self {
            template: template.map(|template| template.guarded(tokenizer.guard())),
            bos_token_id: tokenizer.bos(),
            eos_token_ids: ends,
            tokenizer: Arc::new(tokenizer),
        })
    }
}
