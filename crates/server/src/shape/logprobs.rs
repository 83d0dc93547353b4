//! The three ways in which the API spells log probabilities.

use engine::{TokenId, TokenLogprob};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// JSON has no infinity; the API's own word for "never" is this.
const NEVER: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

/// Chat: one entry per token.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs {
    pub content: Vec<ChatLogprob>,
    refusal: Option<Vec<ChatLogprob>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprob {
    #[serde(flatten)]
    token: Alternative,
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<TokenLogprob> for Alternative {
    fn from(token: TokenLogprob) -> Self {
        Self { token: token.text, logprob: finite(token.logprob), bytes: token.bytes }
    }
}

impl FromIterator<TokenLogprob> for ChatLogprobs {
    fn from_iter<I: IntoIterator<Item = TokenLogprob>>(tokens: I) -> Self {
        let content = tokens.into_iter().map(|mut token| {
            let top_logprobs = std::mem::take(&mut token.top).into_iter().map(Alternative::from).collect();
            ChatLogprob { token: token.into(), top_logprobs }
        });
        Self { content: content.collect(), refusal: None }
    }
}

/// Text completions: one column per property.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    /// `None` for the first token of a prompt.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<ByText>>,
    /// In characters, from the start of the choice's text.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Appends a token and returns where the next one starts. A token with nothing before it has no log probability.
    pub fn push(&mut self, text: &str, logprob: Option<&TokenLogprob>, offset: usize) -> usize {
        self.tokens.push(text.to_owned());
        self.token_logprobs.push(logprob.map(|token| finite(token.logprob)));
        self.top_logprobs.push(logprob.map(ByText::from));
        self.text_offset.push(offset);
        offset + text.chars().count()
    }

    pub fn append(&mut self, mut other: Self) {
        self.tokens.append(&mut other.tokens);
        self.token_logprobs.append(&mut other.token_logprobs);
        self.top_logprobs.append(&mut other.top_logprobs);
        self.text_offset.append(&mut other.text_offset);
    }
}

/// Best alternatives by their text, and the token itself if it is not among them; of equal texts the best.
#[derive(Clone, Debug)]
struct ByText(Vec<(String, f32)>);

impl From<&TokenLogprob> for ByText {
    fn from(token: &TokenLogprob) -> Self {
        let mut entries: Vec<(String, f32)> = Vec::with_capacity(token.top.len() + 1);
        for candidate in token.top.iter().chain([token]) {
            if entries.iter().all(|(text, _)| *text != candidate.text) {
                entries.push((candidate.text.clone(), finite(candidate.logprob)));
            }
        }
        Self(entries)
    }
}

impl Serialize for ByText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

/// Of a prompt, as vLLM spells them: per token its alternatives by id, null for the first.
#[derive(Debug, Serialize)]
pub(crate) struct PromptLogprobs(Vec<Option<ById>>);

impl From<&[Option<TokenLogprob>]> for PromptLogprobs {
    fn from(tokens: &[Option<TokenLogprob>]) -> Self {
        Self(tokens.iter().map(|token| token.as_ref().map(ById::from)).collect())
    }
}

#[derive(Debug)]
struct ById(Vec<(TokenId, Ranked)>);

#[derive(Debug, Serialize)]
struct Ranked {
    logprob: f32,
    /// 1 for the likeliest; null where the token is not among those asked for.
    rank: Option<usize>,
    decoded_token: String,
}

impl From<&TokenLogprob> for ById {
    fn from(token: &TokenLogprob) -> Self {
        let ranked = |rank, token: &TokenLogprob| {
            let logprob = finite(token.logprob);
            (token.token, Ranked { logprob, rank, decoded_token: token.text.clone() })
        };
        let top = token.top.iter().zip(1..).map(|(candidate, rank)| ranked(Some(rank), candidate));
        let mut entries: Vec<_> = top.collect();
        if entries.iter().all(|(id, _)| *id != token.token) {
            entries.push(ranked(None, token));
        }
        Self(entries)
    }
}

impl Serialize for ById {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, ranked) in &self.0 {
            map.serialize_entry(id, ranked)?;
        }
        map.end()
    }
}
