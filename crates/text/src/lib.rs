//! Text on its way to tokens and back: tokenizer, chat template, incremental detokenizer, stop strings.
//!
//! This crate knows no request, no model weights and no HTTP. Start with [`TextModel`], which is what an engine needs of
//! a model's text side; a prompt goes [`ChatTemplate::render`] → [`Tokenizer::encode_rendered`], an answer goes
//! [`Detokenizer::push`] → [`StopStrings::push`].

mod detokenizer;
mod error;
mod gguf;
mod guard;
mod jinja;
mod messages;
mod model;
mod pieces;
mod stop;
mod template;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use gguf::GgufVocab;
pub use guard::Guard;
pub use model::TextModel;
pub use stop::StopStrings;
pub use template::{ChatInput, ChatTemplate, Rendered};
pub use tokenizer::{SpecialTokens, Tokenizer};
