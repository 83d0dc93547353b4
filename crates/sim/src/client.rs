//! A simulated client: collects what the engine sends about one request and compares it with the oracle's answers.

use contract::{Logprob, TokenId};
use engine::driver::Update;
use sched::End;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::chaos::Journal;
use crate::model::Tag;
use crate::oracle::Answer;
use crate::rng::mix;

/// Steps of a lost executor that a request survives.
const MAX_LOSSES: u32 = 3;

pub(crate) struct Client {
    /// Sampling seed of choice 0.
    seed: u64,
    /// `None` once the client has vanished.
    updates: Option<UnboundedReceiver<Update>>,
    answers: Vec<Answer>,
    choices: Vec<Choice>,
    prompt_logprobs: Vec<Logprob>,
    prompt_len: u32,
    has_started: bool,
    failed: Option<String>,
    was_aborted: bool,
    pub trace: u64,
}

#[derive(Default)]
struct Choice {
    tokens: Vec<TokenId>,
    logprobs: Vec<Logprob>,
    end: Option<End>,
    was_aborted: bool,
}

impl Client {
    pub fn new(seed: u64, prompt_len: u32, updates: UnboundedReceiver<Update>, answers: Vec<Answer>) -> Self {
        Self {
            seed,
            updates: Some(updates),
            choices: answers.iter().map(|_| Choice::default()).collect(),
            answers,
            prompt_logprobs: Vec::new(),
            prompt_len,
            has_started: false,
            failed: None,
            was_aborted: false,
            trace: 0,
        }
    }

    pub fn abort(&mut self) {
        self.was_aborted = true;
    }

    pub fn vanish(&mut self) {
        self.was_aborted = true;
        self.updates = None;
    }

    pub fn abort_choice(&mut self, index: u32) {
        self.choices[index as usize].was_aborted = true;
    }

    pub fn has_ended(&self) -> bool {
        let has_ended = |choice: &Choice| choice.end.is_some() || choice.was_aborted;
        self.was_aborted || self.failed.is_some() || self.choices.iter().all(has_ended)
    }

    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    pub fn was_aborted(&self) -> bool {
        self.was_aborted
    }

    /// Takes in what came, and checks that nothing comes after an end.
    pub fn listen(&mut self) -> Result<(), String> {
        while let Some(update) = self.updates.as_mut().and_then(|updates| updates.try_recv().ok()) {
            if self.failed.is_some() {
                return Err(format!("{update:?} came after the request had failed"));
            }
            self.take(update)?;
        }
        Ok(())
    }

    fn take(&mut self, update: Update) -> Result<(), String> {
        match update {
            Update::Started { cached_tokens, .. } => {
                self.note(u64::from(cached_tokens));
                if std::mem::replace(&mut self.has_started, true) {
                    return Err("the request started twice".to_owned());
                }
                if cached_tokens >= self.prompt_len {
                    return Err(format!("{cached_tokens} cached tokens leave nothing to sample from"));
                }
                Ok(())
            }
            Update::Prompt(logprobs) => {
                self.prompt_logprobs.extend(logprobs);
                prefix("prompt log probabilities", &self.prompt_logprobs, &self.answers[0].prompt_logprobs)
            }
            Update::Token { index, token, logprobs, end, .. } => {
                self.note(u64::from(index) << 32 | u64::from(token));
                let choice = &mut self.choices[index as usize];
                choice.tokens.push(token);
                choice.logprobs.extend(logprobs);
                prefix("tokens", &choice.tokens, &self.answers[index as usize].tokens)?;
                prefix("log probabilities", &choice.logprobs, &self.answers[index as usize].logprobs)?;
                end.map_or(Ok(()), |end| self.end(index, end))
            }
            Update::Ended { index, end, .. } => self.end(index, end),
            Update::Failed(error) => {
                self.note(error.message.len() as u64);
                self.failed = Some(error.message);
                Ok(())
            }
        }
    }

    fn end(&mut self, index: u32, end: End) -> Result<(), String> {
        let (choice, answer) = (&mut self.choices[index as usize], &self.answers[index as usize]);
        if choice.end.replace(end).is_some() {
            return Err(format!("choice {index} ended twice"));
        }
        let (came, expected) = ((choice.tokens.len(), Some(end)), (answer.tokens.len(), answer.end));
        if came != expected {
            return Err(format!("choice {index} ended with (length, end) = {came:?} and not {expected:?}"));
        }
        if index == 0 && self.prompt_logprobs.len() != self.answers[0].prompt_logprobs.len() {
            return Err("the prompt's log probabilities are incomplete".to_owned());
        }
        Ok(())
    }

    fn note(&mut self, what: u64) {
        self.trace = mix(self.trace ^ what);
    }

    /// After all is over: the request ended, and failed only for a reason that is its own.
    pub fn check(&self, journal: &Journal) -> Result<(), String> {
        if !self.has_ended() {
            return Err("a request never ended".to_owned());
        }
        let Some(message) = &self.failed else { return Ok(()) };
        let times = |book: &std::collections::BTreeMap<u64, u32>| {
            (0..self.choices.len() as u64)
                .filter_map(|choice| book.get(&(self.seed + choice)))
                .max()
                .copied()
                .unwrap_or(0)
        };
        let is_excused = if message.contains("finite") {
            Tag::of(self.seed).poison_at.is_some()
        } else if message.contains("refused") {
            times(&journal.refused) > 0
        } else {
            message.contains("repeatedly") && times(&journal.lost) >= MAX_LOSSES
        };
        if is_excused { Ok(()) } else { Err(format!("a request failed for a reason that is not its own: {message}")) }
    }
}

/// What came so far is how the expected begins.
fn prefix<T: PartialEq + std::fmt::Debug>(what: &str, came: &[T], expected: &[T]) -> Result<(), String> {
    if expected.starts_with(came) {
        return Ok(());
    }
    let at = came.iter().zip(expected).take_while(|(came, expected)| came == expected).count();
    Err(format!("{what} differ at {at}: came {:?}, expected {:?}", came.get(at), expected.get(at)))
}
