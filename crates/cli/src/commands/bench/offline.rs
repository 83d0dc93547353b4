//! Requests of fixed lengths straight through the engine's handle: no HTTP, no text to tokenize.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use engine::{EngineHandle, Event, GenerateRequest, Prompt, Response};
use indicatif::ProgressBar;
use loadgen::Random;

use crate::args::ModelArgs;
use crate::assemble::{Assembled, assemble_metered};

/// How long prompts and answers are, in tokens.
#[derive(Clone, Copy)]
pub(super) struct Lengths {
    pub input: u32,
    pub output: u32,
    /// Of one more prompt, which comes when all have begun to answer.
    pub beside: Option<u32>,
}

impl Lengths {
    /// Of the longest prompt and its answer together.
    pub fn longest(self) -> u32 {
        self.input.saturating_add(self.output).max(self.beside.map_or(0, |beside| beside.saturating_add(1)))
    }
}

/// An engine that takes `num_requests` at once.
pub(super) fn start(model: &ModelArgs, num_requests: u32, lengths: Lengths) -> Result<Assembled> {
    let assembled = assemble_metered(model, num_requests)?;
    let (wanted, limit) = (lengths.longest(), assembled.engine.max_model_len());
    if wanted > limit || lengths.input == 0 {
        bail!("a prompt and its answer of {wanted} tokens together do not fit: 2 to {limit} do");
    }
    eprintln!("{} on {}", assembled.files.name, assembled.device);
    Ok(assembled)
}

/// How long a batch took.
#[derive(Clone, Copy)]
pub(super) struct Elapsed {
    /// Until every request had its first token.
    pub first_tokens: Duration,
    /// From when the prompt beside them was sent until its first token.
    pub beside: Option<Duration>,
    /// Until every request had its last.
    pub whole: Duration,
}

/// Runs `num_requests` from their submission to their last token, and ticks `bar` for each. Prompts are random tokens that no other `round` repeats.
///
/// # Errors
/// If a request is refused or fails, or its answer is not as long as asked.
pub(super) fn batch(
    engine: &EngineHandle,
    num_requests: u32,
    lengths: Lengths,
    round: u32,
    bar: &ProgressBar,
) -> Result<Elapsed> {
    let requests: Vec<GenerateRequest> =
        (0..num_requests).map(|idx| request(engine, lengths, (u64::from(round) << 32) | u64::from(idx))).collect();
    let started = Instant::now();
    let mut responses: Vec<Response> =
        requests.into_iter().map(|request| engine.submit(request)).collect::<Result<_, _>>()?;
    for response in &mut responses {
        next(response)?;
    }
    let first_tokens = started.elapsed();
    let beside = lengths.beside.map(|input| {
        let lengths = Lengths { input, output: 1, beside: None };
        let sent = Instant::now();
        let mut response =
            engine.submit(request(engine, lengths, (u64::from(round) << 32) | u64::from(num_requests)))?;
        while next(&mut response)? {}
        Ok::<_, anyhow::Error>(sent.elapsed())
    });
    let beside = beside.transpose()?;
    for mut response in responses {
        while next(&mut response)? {}
        let tokens = response.usage().completion_tokens;
        if tokens != lengths.output {
            bail!("an answer has {tokens} tokens where {} were asked for", lengths.output);
        }
        bar.inc(1);
    }
    Ok(Elapsed { first_tokens, beside, whole: started.elapsed() })
}

fn request(engine: &EngineHandle, lengths: Lengths, stream: u64) -> GenerateRequest {
    let mut random = Random::new(0, stream);
    let vocab_size = engine.vocab_size();
    let prompt = (0..lengths.input).map(|_| random.below(vocab_size) as u32).collect();
    let mut request = GenerateRequest::new(Prompt::Tokens(prompt));
    request.max_tokens = Some(lengths.output);
    request.ignore_eos = true;
    request.sampling.min_tokens = lengths.output;
    request.sampling.temperature = 0.0;
    request
}

/// Waits for more of an answer; false at its end.
fn next(response: &mut Response) -> Result<bool> {
    match response.blocking_next() {
        Some(Event::Failed(error)) => Err(error.into()),
        event => Ok(event.is_some()),
    }
}
