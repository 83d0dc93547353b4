//! What is asked: prompts and how long the answers shall be. Knows no tokenizer; the server counts the tokens.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::Random;

/// Words that common vocabularies hold as one token each, with the space before it.
const WORDS: &str = "the of and to in is that for it was on are as with they at be this from have or by one had not but \
    what all were when we there can an your which their said if do will each about how up out them then she many some so \
    these would other into has more her two like him see time could no make than first been its who now people my made \
    over did down only way find use may water long little very after words called just where most know get through back \
    much before go good new write our used me man too any day same right look think also around another came come work \
    three word must because does part even place well such here take why things help put years different away again off \
    went old number great tell men say small every found still between name should home big give air line set own under \
    read last never us left end along while might next sound below saw something thought both few those always looked \
    show large often together asked house world going want school important until form food keep children feet land side \
    without boy once animals life enough took sometimes four head above kind began almost live page got earth need far";

/// One request: the prompt, and how many tokens the answer shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub prompt: String,
    pub output_len: u32,
}

/// Where prompts come from.
#[derive(Clone, Debug)]
pub enum Dataset {
    /// As many random words; no two prompts begin alike, so no prefix cache helps.
    Random { input_len: usize },
    /// First turns of recorded conversations.
    ShareGpt(Vec<Sample>),
}

/// Prompts without end: each seed repeats its own.
#[derive(Clone, Debug)]
pub struct Workload {
    pub dataset: Dataset,
    /// Every answer has exactly so many tokens; `None` is each as long as the recorded one.
    pub output_len: Option<u32>,
    pub seed: u64,
}

#[derive(Debug, Error)]
pub enum WorkloadError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is not a list of conversations as ShareGPT writes them: {error}", path.display())]
    Shape { path: PathBuf, error: serde_json::Error },
    #[error("the file has {found} conversations with a question and an answer, and {asked} requests are asked for")]
    TooFew { found: usize, asked: usize },
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

impl Dataset {
    /// Reads `[{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}]`; what does not begin
    /// with a question and an answer is left out.
    ///
    /// # Errors
    /// If the file cannot be read or has another shape.
    pub fn share_gpt(path: &Path) -> Result<Self, WorkloadError> {
        let read = std::fs::read(path).map_err(|error| WorkloadError::Read { path: path.to_owned(), error })?;
        let conversations: Vec<Conversation> =
            serde_json::from_slice(&read).map_err(|error| WorkloadError::Shape { path: path.to_owned(), error })?;
        Ok(Self::ShareGpt(conversations.iter().filter_map(first_turns).collect()))
    }
}

fn first_turns(conversation: &Conversation) -> Option<Sample> {
    let [question, answer, ..] = conversation.conversations.as_slice() else { return None };
    let asked = matches!(question.from.as_str(), "human" | "user") && !question.value.trim().is_empty();
    let words = answer.value.split_whitespace().count();
    // Four tokens for three words is what English takes in common vocabularies.
    (asked && words > 0).then(|| Sample {
        prompt: question.value.clone(),
        output_len: u32::try_from(words * 4 / 3).unwrap_or(u32::MAX),
    })
}

impl Workload {
    /// `count` samples from place `offset` on; the same places give the same samples. Recorded conversations come in an
    /// order that the seed shuffles, and begin again after the last.
    ///
    /// # Errors
    /// If there are fewer recorded conversations than `count`.
    pub fn samples(&self, offset: usize, count: usize) -> Result<Vec<Sample>, WorkloadError> {
        let sample =
            |sample: &Sample| Sample { output_len: self.output_len.unwrap_or(sample.output_len), ..sample.clone() };
        match &self.dataset {
            Dataset::Random { input_len } => {
                let output_len = self.output_len.unwrap_or(DEFAULT_OUTPUT_LEN);
                let prompt = |idx| words(*input_len, Random::new(self.seed, idx as u64));
                Ok((offset..offset + count).map(|idx| Sample { prompt: prompt(idx), output_len }).collect())
            }
            Dataset::ShareGpt(recorded) if recorded.len() < count => {
                Err(WorkloadError::TooFew { found: recorded.len(), asked: count })
            }
            Dataset::ShareGpt(recorded) => {
                let mut order: Vec<&Sample> = recorded.iter().collect();
                Random::new(self.seed, 0).shuffle(&mut order);
                Ok(order.into_iter().cycle().skip(offset % recorded.len().max(1)).take(count).map(sample).collect())
            }
        }
    }
}

/// Tokens of an answer where neither the caller nor the data says.
const DEFAULT_OUTPUT_LEN: u32 = 128;

fn words(count: usize, mut random: Random) -> String {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let drawn: Vec<&str> = (0..count).map(|_| words[random.below(words.len())]).collect();
    drawn.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64, input_len: usize) -> Workload {
        Workload { dataset: Dataset::Random { input_len }, output_len: Some(9), seed }
    }

    #[test]
    fn seeds_repeat_and_prompts_differ() {
        let samples = random(7, 12).samples(0, 50).unwrap();
        assert_eq!(samples, random(7, 12).samples(0, 50).unwrap());
        assert_ne!(samples, random(8, 12).samples(0, 50).unwrap());
        assert_eq!(samples[20..], random(7, 12).samples(20, 30).unwrap());
        assert!(samples.iter().all(|sample| sample.prompt.split(' ').count() == 12 && sample.output_len == 9));
        let prompts: std::collections::BTreeSet<_> = samples.iter().map(|sample| &sample.prompt).collect();
        assert_eq!(prompts.len(), 50);
    }

    #[test]
    fn as_many_words_as_asked() {
        for input_len in [0, 1, 2, 1000] {
            let samples = random(0, input_len).samples(0, 1).unwrap();
            assert_eq!(samples[0].prompt.split_whitespace().count(), input_len);
        }
    }

    fn share_gpt(text: &str) -> Result<Dataset, WorkloadError> {
        let path = std::env::temp_dir().join(format!("loadgen-{}-{}.json", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let dataset = Dataset::share_gpt(&path);
        std::fs::remove_file(&path).unwrap();
        dataset
    }

    const RECORDED: &str = r#"[
        {"id": "a", "conversations": [{"from": "human", "value": "one?"}, {"from": "gpt", "value": "a b c d e f"}]},
        {"conversations": [{"from": "gpt", "value": "no question"}, {"from": "human", "value": "late"}]},
        {"conversations": [{"from": "human", "value": "no answer"}]},
        {"conversations": []},
        {"conversations": [{"from": "user", "value": "two?"}, {"from": "assistant", "value": "a b c"}]}]"#;

    #[test]
    fn recorded_conversations() {
        let dataset = share_gpt(RECORDED).unwrap();
        let workload = Workload { dataset: dataset.clone(), output_len: None, seed: 1 };
        let mut samples = workload.samples(0, 2).unwrap();
        assert_eq!(samples[1], workload.samples(1, 1).unwrap()[0], "a later place of the same order");
        assert_eq!(samples, workload.samples(2, 2).unwrap(), "after the last comes the first");
        samples.sort_by_key(|sample| sample.output_len);
        let found: Vec<_> = samples.iter().map(|sample| (sample.prompt.as_str(), sample.output_len)).collect();
        assert_eq!(found, [("two?", 4), ("one?", 8)]);
        let fixed = Workload { dataset, output_len: Some(5), seed: 1 };
        assert!(fixed.samples(0, 2).unwrap().iter().all(|sample| sample.output_len == 5));
        assert!(matches!(fixed.samples(0, 3), Err(WorkloadError::TooFew { found: 2, asked: 3 })));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(share_gpt("{}"), Err(WorkloadError::Shape { .. })));
        assert!(matches!(Dataset::share_gpt(Path::new("/nowhere.json")), Err(WorkloadError::Read { .. })));
        let none = Workload { dataset: share_gpt("[ ]").unwrap(), output_len: None, seed: 0 };
        assert!(none.samples(3, 0).unwrap().is_empty());
    }
}
