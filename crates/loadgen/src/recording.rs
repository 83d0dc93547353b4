//! One answer as it came: when each piece arrived, and how many tokens the server says it was. Holds no clock.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

/// Times and counts of one streamed answer.
///
/// A piece is an event that carries text: the role that opens a chat and the bare reason that ends an answer are none, or
/// a server could buy a short time to the first token with an empty event. An answer whose tokens have no text at all is
/// timed by its end.
#[derive(Clone, Debug)]
pub struct Recording {
    started: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    ended: Option<Instant>,
    gaps: Vec<Duration>,
    usage: Option<Usage>,
    is_done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

/// Why an event cannot be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadEvent {
    Malformed(String),
    Server(String),
}

impl Choice {
    fn has_text(&self) -> bool {
        let delta = self.delta.iter().flat_map(|delta| [&delta.content, &delta.reasoning_content]);
        delta.chain([&self.text]).flatten().any(|text| !text.is_empty())
    }
}

impl Recording {
    /// Of a request that is sent at `started`.
    pub fn new(started: Instant) -> Self {
        Self { started, first: None, last: None, ended: None, gaps: Vec::new(), usage: None, is_done: false }
    }

    /// Takes what stood after `data:`, which arrived at `now`.
    pub(crate) fn take(&mut self, data: &[u8], now: Instant) -> Result<(), BadEvent> {
        if data == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|error| BadEvent::Malformed(error.to_string()))?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(BadEvent::Server(sentence(&error)));
        }
        if chunk.choices.iter().any(Choice::has_text) {
            match self.last {
                None => self.first = Some(now),
                Some(last) => self.gaps.push(now.duration_since(last)),
            }
            self.last = Some(now);
        }
        if chunk.choices.iter().any(|choice| choice.finish_reason.is_some()) {
            self.ended = Some(now);
        }
        self.usage = chunk.usage.or(self.usage);
        Ok(())
    }

    /// Whether the server said that this is all.
    pub fn is_complete(&self) -> bool {
        self.is_done && (self.ended.is_some() || self.last.is_some())
    }

    /// From sending the request to the first text.
    pub fn ttft(&self) -> Duration {
        self.first.or(self.ended).map_or(Duration::ZERO, |first| first.duration_since(self.started))
    }

    /// From sending the request to the last text, or to the reason why it ended if that came later.
    pub fn e2el(&self) -> Duration {
        self.last.max(self.ended).map_or(Duration::ZERO, |last| last.duration_since(self.started))
    }

    /// Between one piece and the next; 0 where two came in one read.
    pub fn gaps(&self) -> &[Duration] {
        &self.gaps
    }

    /// From the first text to the last.
    pub(crate) fn span(&self) -> Option<(Instant, Instant)> {
        self.first.zip(self.last)
    }

    /// From sending the request to the first text.
    pub(crate) fn waiting(&self) -> (Instant, Instant) {
        (self.started, self.started + self.ttft())
    }

    /// The gaps, from when to when.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (Instant, Instant)> {
        let mut at = self.first.unwrap_or(self.started);
        self.gaps.iter().map(move |gap| {
            let from = at;
            at += *gap;
            (from, at)
        })
    }

    /// Time per output token after the first; `None` with less than two of them.
    pub fn tpot(&self) -> Option<Duration> {
        let after_first = u32::try_from(self.output_tokens().checked_sub(1)?).ok().filter(|&count| count > 0)?;
        Some(self.e2el().saturating_sub(self.ttft()) / after_first)
    }

    /// Pieces with text.
    pub fn num_chunks(&self) -> u64 {
        self.gaps.len() as u64 + u64::from(self.first.is_some())
    }

    pub fn has_usage(&self) -> bool {
        self.usage.is_some()
    }

    /// By the server's own count, or else the pieces.
    pub fn output_tokens(&self) -> u64 {
        self.usage.map_or(self.num_chunks(), |usage| usage.completion_tokens)
    }

    /// By the server's own count; 0 if it has none.
    pub fn input_tokens(&self) -> u64 {
        self.usage.map_or(0, |usage| usage.prompt_tokens)
    }

    /// Tokens of the prompt that the server says it did not compute.
    pub fn cached_tokens(&self) -> u64 {
        self.usage.and_then(|usage| usage.prompt_tokens_details?.cached_tokens).unwrap_or(0)
    }
}

/// The message of an error in any of the shapes that servers use.
pub(crate) fn sentence(error: &Value) -> String {
    let inner = error.get("error").unwrap_or(error);
    let message = inner.get("message").unwrap_or(inner);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events at milliseconds after the start.
    fn recorded(events: &[(u64, &str)]) -> Recording {
        let started = Instant::now();
        let mut recording = Recording::new(started);
        for (at, event) in events {
            recording.take(event.as_bytes(), started + Duration::from_millis(*at)).unwrap();
        }
        recording
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_completion() {
        let recording = recorded(&[
            (10, r#"{"choices":[{"text":"a","finish_reason":null}]}"#),
            (14, r#"{"choices":[{"text":"b"}]}"#),
            (20, r#"{"choices":[{"text":"c"}]}"#),
            (22, r#"{"choices":[{"text":"","finish_reason":"length"}],"usage":null}"#),
            (
                23,
                r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}"#,
            ),
            (24, "[DONE]"),
        ]);
        assert!(recording.is_complete() && recording.has_usage());
        assert_eq!((recording.ttft(), recording.e2el(), recording.tpot()), (ms(10), ms(22), Some(ms(4))));
        assert_eq!(recording.gaps(), [ms(4), ms(6)]);
        assert_eq!((recording.num_chunks(), recording.output_tokens()), (3, 4));
        assert_eq!((recording.input_tokens(), recording.cached_tokens()), (7, 2));
    }

    #[test]
    fn a_role_is_no_token() {
        let recording = recorded(&[
            (1, r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#),
            (9, r#"{"choices":[{"delta":{"content":"a"}}]}"#),
            (12, r#"{"choices":[{"delta":{"content":"b"},"finish_reason":"length"}]}"#),
            (12, "[DONE]"),
        ]);
        assert_eq!((recording.ttft(), recording.e2el(), recording.output_tokens()), (ms(9), ms(12), 2));
        assert!(!recording.has_usage() && recording.is_complete());
    }

    #[test]
    fn tokens_without_text_are_timed_by_the_end() {
        let end = r#"{"choices":[{"text":"","finish_reason":"length"}],"usage":{"completion_tokens":1}}"#;
        let recording = recorded(&[(8, end), (9, "[DONE]")]);
        assert!(recording.is_complete());
        assert_eq!((recording.ttft(), recording.e2el(), recording.tpot()), (ms(8), ms(8), None));
    }

    #[test]
    fn what_is_not_complete() {
        assert!(!recorded(&[]).is_complete());
        assert!(!recorded(&[(1, r#"{"choices":[{"text":"a"}]}"#)]).is_complete());
        assert!(!recorded(&[(1, "[DONE]")]).is_complete());
    }

    #[test]
    fn bad_events() {
        let mut recording = Recording::new(Instant::now());
        let error = br#"{"error":{"message":"out of memory","code":500}}"#;
        assert_eq!(recording.take(error, Instant::now()), Err(BadEvent::Server("out of memory".to_owned())));
        assert!(matches!(recording.take(b"{\"choices\":[", Instant::now()), Err(BadEvent::Malformed(_))));
        assert_eq!(sentence(&serde_json::json!({"error": "plain"})), "plain");
        assert_eq!(sentence(&serde_json::json!({"detail": 1})), r#"{"detail":1}"#);
    }
}
