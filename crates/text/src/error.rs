//! What can be wrong with a model's text files, or with a conversation.

use thiserror::Error;

/// Errors of this crate. [`TextError::is_input`] separates a client's mistake from a model file's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TextError {
    #[error("tokenizer.json cannot be used: {0}")]
    TokenizerJson(String),
    #[error("the tokenizer's decoder is {0}, which is not supported; byte-level and SentencePiece-style decoders are")]
    Decoder(String),
    #[error("the GGUF file's tokenizer fields cannot be used: {0}")]
    Gguf(String),
    #[error("the GGUF tokenizer model \"{0}\" is not supported; \"gpt2\" and \"llama\" are")]
    GgufModel(String),
    #[error(
        "the GGUF pre-tokenizer \"{0}\" is not known; use a checkpoint with a tokenizer.json, or one of these: {known}",
        known = crate::gguf::known_pre_tokenizers()
    )]
    PreTokenizer(String),
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    #[error("the chat template does not compile: {0}")]
    TemplateSyntax(String),
    #[error("the chat template cannot render these messages: {0}")]
    Template(String),
    #[error("the chat template refuses these messages: {0}")]
    TemplateRaised(String),
    #[error("the chat template ran for too long ({fuel} instructions); it may loop without end")]
    TemplateFuel { fuel: u64 },
    #[error("the chat template wrote more than {limit} bytes")]
    TemplateOutput { limit: usize },
    #[error("messages[{message}].content[{part}]: this model takes text only, not parts of type \"{kind}\"")]
    ContentPart { message: usize, part: usize, kind: String },
    #[error("messages[{message}]: {reason}")]
    Message { message: usize, reason: String },
    #[error("continue_final_message: {0}")]
    Continue(String),
}

impl TextError {
    /// True where another conversation could succeed with the same model.
    pub fn is_input(&self) -> bool {
        !matches!(
            self,
            Self::TokenizerJson(_)
                | Self::Decoder(_)
                | Self::Gguf(_)
                | Self::GgufModel(_)
                | Self::PreTokenizer(_)
                | Self::TemplateSyntax(_)
        )
    }
}
