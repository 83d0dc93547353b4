//! What is asked: prompts and how long the answers shall be. Knows no tokenizer; the server counts the tokens.

use std::path::PathBuf;

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

/// Streams of the seed that prefixes, and prompts beside the others, are drawn from; all others use those from 0 on.
const PREFIXES: u64 = 1 << 62;
const BESIDE: u64 = 1 << 61;

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
    /// `num_prefixes` beginnings in turn, and random words behind them that no other prompt has. Lengths are in words.
    PrefixRepetition { prefix_len: usize, suffix_len: usize, num_prefixes: usize },
    /// Prompts with answers of their own lengths.
    Recorded(Vec<Sample>),
}

/// Prompts without end: each seed repeats its own.
#[derive(Clone, Debug)]
pub struct Workload {
    pub dataset: Dataset,
    /// Every answer has exactly so many tokens, but recorded ones.
    pub output_len: u32,
    pub seed: u64,
}

#[derive(Debug, Error)]
pub enum WorkloadError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is not a list of conversations as ShareGPT writes them: {error}", path.display())]
    Shape { path: PathBuf, error: serde_json::Error },
    #[error(
        "the file has {found} conversations with a question and an answer that the server can take, and {asked} requests are asked for"
    )]
    TooFew { found: usize, asked: usize },
}

impl Workload {
    /// `count` samples from place `offset` on; the same places give the same samples. Recorded ones begin again after the last.
    ///
    /// # Errors
    /// If there are fewer recorded prompts than `count`.
    pub fn samples(&self, offset: usize, count: usize) -> Result<Vec<Sample>, WorkloadError> {
        let prompt = |idx| match self.dataset {
            Dataset::PrefixRepetition { prefix_len, suffix_len, num_prefixes } => {
                let prefix = self.words(prefix_len, PREFIXES + (idx % num_prefixes.max(1)) as u64);
                format!("{prefix} {}", self.words(suffix_len, idx as u64))
            }
            Dataset::Random { input_len } => self.words(input_len, idx as u64),
            Dataset::Recorded(_) => unreachable!("recorded prompts are not made"),
        };
        match &self.dataset {
            Dataset::Recorded(recorded) if recorded.len() < count => {
                Err(WorkloadError::TooFew { found: recorded.len(), asked: count })
            }
            Dataset::Recorded(recorded) => {
                Ok(recorded.iter().cycle().skip(offset % recorded.len().max(1)).take(count).cloned().collect())
            }
            _ => Ok((offset..offset + count).map(|idx| self.sample(prompt(idx))).collect()),
        }
    }

    /// Prompt number `idx` of those that are sent beside the others: `input_len` words, an answer of one token.
    pub fn beside(&self, input_len: usize, idx: usize) -> Sample {
        Sample { prompt: self.words(input_len, BESIDE + idx as u64), output_len: 1 }
    }

    fn sample(&self, prompt: String) -> Sample {
        Sample { prompt, output_len: self.output_len }
    }

    fn words(&self, count: usize, stream: u64) -> String {
        let words: Vec<&str> = WORDS.split_whitespace().collect();
        let mut random = Random::new(self.seed, stream);
        let drawn: Vec<&str> = (0..count).map(|_| words[random.below(words.len())]).collect();
        drawn.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64, input_len: usize) -> Workload {
        Workload { dataset: Dataset::Random { input_len }, output_len: 9, seed }
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

    #[test]
    fn prefixes_repeat_and_suffixes_do_not() {
        let dataset = Dataset::PrefixRepetition { prefix_len: 20, suffix_len: 4, num_prefixes: 3 };
        let samples = Workload { dataset, output_len: 1, seed: 5 }.samples(0, 9).unwrap();
        let words: Vec<Vec<&str>> = samples.iter().map(|sample| sample.prompt.split(' ').collect()).collect();
        assert!(words.iter().all(|words| words.len() == 24));
        for (idx, prompt) in words.iter().enumerate() {
            for (other_idx, other) in words.iter().enumerate().skip(idx + 1) {
                assert_eq!(prompt[..20] == other[..20], idx % 3 == other_idx % 3, "{idx} and {other_idx}");
                assert_ne!(prompt[20..], other[20..], "{idx} and {other_idx}");
            }
        }
    }

    #[test]
    fn recorded_prompts_begin_again() {
        let sample = |prompt: &str, output_len| Sample { prompt: prompt.to_owned(), output_len };
        let recorded = vec![sample("one?", 8), sample("two?", 4)];
        let workload = Workload { dataset: Dataset::Recorded(recorded.clone()), output_len: 128, seed: 1 };
        assert_eq!(workload.samples(2, 2).unwrap(), recorded);
        assert_eq!(workload.samples(1, 1).unwrap()[0], recorded[1]);
        assert!(matches!(workload.samples(0, 3), Err(WorkloadError::TooFew { found: 2, asked: 3 })));
        let none = Workload { dataset: Dataset::Recorded(Vec::new()), ..workload };
        assert!(none.samples(3, 0).unwrap().is_empty());
    }
}
