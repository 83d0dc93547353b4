//! `tokenizer.json`, `tokenizer_config.json` and the chat template as plain data.

use std::path::Path;

use serde::Deserialize;

use super::json;
use crate::error::InFile;
use crate::{ChatTemplateSource, Problem, SpecialTokens, TextSource, TokenizerSource, WeightsError};

/// `tokenizer_config.json`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
struct Written {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    pad_token: Option<Token>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<Templates>,
}

/// A token's text, or an object around it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    template: String,
}

pub(crate) fn read(folder: &Path) -> Result<TextSource, WeightsError> {
    let path = folder.join("tokenizer.json");
    let tokenizer_json = json::bytes(&path)?;
    let written: Written = json::parse_optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let mut chat_templates = match template_file(folder)? {
        Some(source) => vec![default_template(source)],
        None => written.chat_template.map(Templates::into_sources).unwrap_or_default(),
    };
    chat_templates.sort_by_key(|template| template.name != "default");
    let text = |token: Option<Token>| token.map(Token::into_text);
    let special = SpecialTokens {
        bos: text(written.bos_token),
        eos: text(written.eos_token),
        unk: text(written.unk_token),
        pad: text(written.pad_token),
        add_bos: written.add_bos_token,
        add_eos: written.add_eos_token,
    };
    Ok(TextSource { tokenizer: TokenizerSource::Json { tokenizer_json, special }, chat_templates })
}

/// The newer place of the template, which goes before the older one.
fn template_file(folder: &Path) -> Result<Option<String>, WeightsError> {
    let path = folder.join("chat_template.jinja");
    if !path.exists() {
        return Ok(None);
    }
    let source = String::from_utf8(json::bytes(&path)?);
    source.map(Some).map_err(|_| Problem::malformed("is not UTF-8")).in_file(&path)
}

fn default_template(source: String) -> ChatTemplateSource {
    ChatTemplateSource { name: "default".to_owned(), source }
}

impl Token {
    fn into_text(self) -> String {
        match self {
            Self::Text(content) | Self::Added { content } => content,
        }
    }
}

impl Templates {
    fn into_sources(self) -> Vec<ChatTemplateSource> {
        match self {
            Self::One(source) => vec![default_template(source)],
            Self::Named(named) => {
                let sources =
                    named.into_iter().map(|Named { name, template }| ChatTemplateSource { name, source: template });
                sources.collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Written {
        serde_json::from_str(json).expect("valid settings")
    }

    #[test]
    fn tokens_and_templates_come_in_two_shapes() {
        let plain = written(r#"{"bos_token": "<s>", "chat_template": "T"}"#);
        let wrapped = written(
            r#"{"bos_token": {"content": "<s>", "lstrip": false},
                "chat_template": [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "T"}]}"#,
        );
        for (written, names) in [(plain, vec!["default"]), (wrapped, vec!["tool_use", "default"])] {
            assert_eq!(written.bos_token.map(Token::into_text).as_deref(), Some("<s>"));
            let chat_templates = written.chat_template.expect("a template").into_sources();
            assert_eq!(chat_templates.iter().map(|template| template.name.as_str()).collect::<Vec<_>>(), names);
            let tokenizer = TokenizerSource::Json { tokenizer_json: vec![], special: SpecialTokens::default() };
            assert_eq!(TextSource { tokenizer, chat_templates }.chat_template(), Some("T"));
        }
        assert!(written(r#"{"eos_token": null}"#).eos_token.is_none());
    }
}
