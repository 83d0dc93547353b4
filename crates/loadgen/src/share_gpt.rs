//! Recorded conversations as prompts: their first turns, in an order that a seed shuffles, as far as a server can take them.

use std::path::Path;

use serde::Deserialize;

use crate::{Client, Random, Sample, WorkloadError};

/// First questions and their answers.
#[derive(Clone, Debug)]
pub struct ShareGpt(Vec<[String; 2]>);

/// What is left of them for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitting {
    pub samples: Vec<Sample>,
    /// Conversations that are longer than the server's sequences.
    pub dropped: usize,
    /// Whether the server's own tokenizer counted; otherwise lengths are guesses by words.
    pub is_counted: bool,
}

#[derive(Deserialize)]
struct Conversation {
    #[serde(default)]
    conversations: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    from: String,
    value: String,
}

impl ShareGpt {
    /// Reads `[{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}]`; what does not begin
    /// with a question and an answer is left out.
    ///
    /// # Errors
    /// If the file cannot be read or has another shape.
    pub fn read(path: &Path, seed: u64) -> Result<Self, WorkloadError> {
        let read = std::fs::read(path).map_err(|error| WorkloadError::Read { path: path.to_owned(), error })?;
        let conversations: Vec<Conversation> =
            serde_json::from_slice(&read).map_err(|error| WorkloadError::Shape { path: path.to_owned(), error })?;
        let mut turns: Vec<[String; 2]> = conversations.into_iter().filter_map(first_turns).collect();
        Random::new(seed, 0).shuffle(&mut turns);
        Ok(Self(turns))
    }

    /// The first `wanted` conversations that fit `client`'s server, or as many as there are. Answers are as long as `output_len`
    /// says, or else as the recorded ones.
    pub async fn fit(self, client: &Client, output_len: Option<u32>, wanted: usize) -> Fitting {
        let mut limit = client.max_model_len().await;
        let mut fitting = Fitting { samples: Vec::new(), dropped: 0, is_counted: true };
        for [prompt, answer] in self.0 {
            if fitting.samples.len() == wanted {
                break;
            }
            let counted = if fitting.is_counted { count(client, &prompt, &answer).await } else { None };
            fitting.is_counted = counted.is_some();
            let guess = || [guess(&prompt), guess(&answer)].map(|len| (len, None));
            let [(prompt_len, said), (answer_len, _)] = counted.unwrap_or_else(guess);
            limit = said.or(limit);
            let output_len = output_len.unwrap_or(answer_len).max(1);
            if limit.is_some_and(|limit| prompt_len.saturating_add(output_len) > limit) {
                fitting.dropped += 1;
            } else {
                fitting.samples.push(Sample { prompt, output_len });
            }
        }
        fitting
    }
}

/// Lengths by the server's tokenizer, and its limit; `None` where it does not tell.
async fn count(client: &Client, prompt: &str, answer: &str) -> Option<[(u32, Option<u32>); 2]> {
    Some([client.count_prompt(prompt).await.ok()?, client.count(answer).await.ok()?])
}

/// Four tokens for three words is what English takes in common vocabularies.
fn guess(text: &str) -> u32 {
    u32::try_from(text.split_whitespace().count() * 4 / 3).unwrap_or(u32::MAX)
}

fn first_turns(conversation: Conversation) -> Option<[String; 2]> {
    let mut turns = conversation.conversations.into_iter();
    let (question, answer) = (turns.next()?, turns.next()?);
    let asked = matches!(question.from.as_str(), "human" | "user") && !question.value.trim().is_empty();
    (asked && !answer.value.trim().is_empty()).then_some([question.value, answer.value])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ShareGpt, WorkloadError> {
        let path = std::env::temp_dir().join(format!("loadgen-{}-{}.json", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let read = ShareGpt::read(&path, 1);
        std::fs::remove_file(&path).unwrap();
        read
    }

    #[test]
    fn conversations_begin_with_a_question_and_an_answer() {
        let recorded = r#"[
            {"id": "a", "conversations": [{"from": "human", "value": "one?"}, {"from": "gpt", "value": "a b c"}]},
            {"conversations": [{"from": "gpt", "value": "no question"}, {"from": "human", "value": "late"}]},
            {"conversations": [{"from": "human", "value": "no answer"}]},
            {"conversations": []},
            {"conversations": [{"from": "user", "value": "two?"}, {"from": "assistant", "value": "d"}]}]"#;
        let mut turns = read(recorded).unwrap().0;
        turns.sort();
        assert_eq!(turns, [["one?", "a b c"], ["two?", "d"]]);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(read("{}"), Err(WorkloadError::Shape { .. })));
        assert!(matches!(ShareGpt::read(Path::new("/nowhere.json"), 0), Err(WorkloadError::Read { .. })));
    }
}
