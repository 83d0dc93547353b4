//! The `tokenizer.*` metadata as plain data.

use super::header::Header;
use super::value::Value;
use crate::text_source::{ChatTemplateSource, TokenizerSource};
use crate::{GgufVocab, Problem, TextSource};

const TEMPLATE: &str = "tokenizer.chat_template";

pub(super) fn read(header: &Header, file: &[u8]) -> Result<TextSource, Problem> {
    let fields = Fields { header, file };
    let vocab = fields.vocab()?;
    fields.check(&vocab)?;
    Ok(TextSource { tokenizer: TokenizerSource::Gguf(vocab), chat_templates: chat_templates(header)? })
}

/// The default template, then the named ones in the order of their names.
fn chat_templates(header: &Header) -> Result<Vec<ChatTemplateSource>, Problem> {
    let mut templates = Vec::new();
    if let Some(source) = header.string(TEMPLATE)? {
        templates.push(ChatTemplateSource { name: "default".to_owned(), source: source.to_owned() });
    }
    let mut keys: Vec<&String> = header.values.keys().filter(|key| key.starts_with(TEMPLATE)).collect();
    keys.sort();
    for key in keys {
        let name = key[TEMPLATE.len()..].strip_prefix('.');
        if let (Some(name), Some(source)) = (name, header.string(key)?) {
            templates.push(ChatTemplateSource { name: name.to_owned(), source: source.to_owned() });
        }
    }
    Ok(templates)
}

struct Fields<'a> {
    header: &'a Header,
    file: &'a [u8],
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

impl Fields<'_> {
    fn vocab(&self) -> Result<GgufVocab, Problem> {
        let token = |name: &str| self.header.token(&key(name));
        let flag = |name: &str| self.header.bool(&key(name));
        let model = self.header.string(&key("model"))?;
        let model = model.ok_or_else(|| Problem::Config("tokenizer.ggml.model is missing".to_owned()))?;
        Ok(GgufVocab {
            model: model.to_owned(),
            pre: self.header.string(&key("pre"))?.map(str::to_owned),
            tokens: self.strings("tokens")?,
            scores: self.scalars("scores", Value::as_float)?,
            token_types: self.scalars("token_type", |value| value.as_unsigned()?.try_into().ok())?,
            merges: self.strings("merges")?,
            bos: token("bos_token_id")?,
            eos: token("eos_token_id")?,
            eot: token("eot_token_id")?,
            unk: token("unknown_token_id")?,
            pad: token("padding_token_id")?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
        })
    }

    fn check(&self, vocab: &GgufVocab) -> Result<(), Problem> {
        let num_tokens = vocab.tokens.len();
        if num_tokens == 0 {
            return Err(Problem::Config("tokenizer.ggml.tokens is missing or empty".to_owned()));
        }
        for (name, len) in [("scores", vocab.scores.len()), ("token_type", vocab.token_types.len())] {
            if len != 0 && len != num_tokens {
                return Err(Problem::Config(format!("{} has {len} items for {num_tokens} tokens", key(name))));
            }
        }
        let special = [vocab.bos, vocab.eos, vocab.eot, vocab.unk, vocab.pad];
        match special.into_iter().flatten().find(|token| *token as usize >= num_tokens) {
            Some(token) => {
                Err(Problem::Config(format!("the special token {token} is outside the {num_tokens} tokens")))
            }
            None => Ok(()),
        }
    }

    fn strings(&self, name: &str) -> Result<Vec<String>, Problem> {
        match self.header.get(&key(name)) {
            None => Ok(Vec::new()),
            Some(Value::Array(array)) => array.strings(self.file, &key(name)),
            Some(_) => Err(Problem::Config(format!("{} must be an array of strings", key(name)))),
        }
    }

    fn scalars<T>(&self, name: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, Problem> {
        match self.header.get(&key(name)) {
            None => Ok(Vec::new()),
            Some(Value::Array(array)) => array.scalars(self.file, &key(name), convert),
            Some(_) => Err(Problem::Config(format!("{} must be an array of numbers", key(name)))),
        }
    }
}
