//! From what a checkpoint says of text to the engine's text side. `weights` and `text` do not know each other.

use anyhow::{Context, Result};
use text::{TextModel, Tokenizer};
use weights::{Checkpoint, TokenizerSource};

/// The tokenizer, the chat template and the end tokens of `checkpoint`.
pub fn text_model(checkpoint: &Checkpoint) -> Result<TextModel> {
    let source = checkpoint.text_source()?;
    let tokenizer = match source.tokenizer {
        TokenizerSource::Json { tokenizer_json, special } => {
            let named = [&special.unk, &special.pad].into_iter().flatten().cloned().collect();
            let special = text::SpecialTokens { bos: special.bos, eos: special.eos, additional: named };
            Tokenizer::from_json(&tokenizer_json, special)
        }
        TokenizerSource::Gguf(vocab) => Tokenizer::from_gguf(text::GgufVocab {
            model: vocab.model,
            pre: vocab.pre,
            tokens: vocab.tokens,
            scores: vocab.scores,
            token_types: vocab.token_types,
            merges: vocab.merges,
            bos: vocab.bos,
            eos: vocab.eos,
            eot: vocab.eot,
            unk: vocab.unk,
            add_bos: vocab.add_bos,
            add_eos: vocab.add_eos,
            add_space_prefix: vocab.add_space_prefix,
        }),
    };
    let template = source.chat_templates.first().map(|template| template.source.as_str());
    TextModel::new(tokenizer.context("the tokenizer cannot be used")?, template, &checkpoint.config().eos_token_ids)
        .context("the chat template cannot be used")
}
