//! An engine with a token per byte above and the simulated executor below, and a client that collects an answer.

use std::sync::Arc;
use std::time::Duration;

use contract::{Control, Executor, ExecutorError, KvCapacity, Masks, ModelRunnerOutput, SchedulerOutput};
use engine::{
    EngineConfig, EngineHandle, Event, Finish, FinishReason, GenerateRequest, Prompt, SamplingParams, StopMatch,
    TokenId,
};
use sim::{SimConfig, SimExecutor};
use text::{GgufVocab, TextModel, Tokenizer};

pub const END: TokenId = 256;
pub const MAX_LEN: u32 = 128;

/// A token per byte, an end token, and a template that writes the contents.
pub fn text_model() -> Arc<TextModel> {
    let is_shown = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut hidden = 256..;
    let mut shown = |byte| if is_shown(byte) { byte } else { hidden.next().expect("there is always a next number") };
    let char = |code| char::from_u32(code).expect("the codes are characters").to_string();
    let mut tokens: Vec<String> = (0..256).map(|byte| char(shown(byte))).collect();
    tokens.push("<|end|>".to_owned());
    let vocab = GgufVocab {
        model: "gpt2".to_owned(),
        pre: Some("gpt-2".to_owned()),
        token_types: tokens.iter().map(|token| if token.len() > 2 { 3 } else { 1 }).collect(),
        tokens,
        eos: Some(END),
        ..GgufVocab::default()
    };
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    let tokenizer = Tokenizer::from_gguf(vocab).expect("a valid vocabulary");
    Arc::new(TextModel::new(tokenizer, Some(template), &[END]).expect("a valid template"))
}

pub fn sim_config() -> SimConfig {
    SimConfig::plain(257, MAX_LEN)
}

pub fn start(config: EngineConfig) -> EngineHandle {
    start_on(config, || SimExecutor::new(sim_config()))
}

pub fn start_on<E: Executor + 'static>(
    config: EngineConfig,
    executor: impl FnOnce() -> E + Send + 'static,
) -> EngineHandle {
    engine::start(config, text_model(), move || Ok(Box::new(executor()))).expect("the engine starts")
}

/// Samples letters only, and never the end.
pub fn request(prompt: &str, max_tokens: u32) -> GenerateRequest {
    let letters = (b'a'..=b'z').map(TokenId::from).collect();
    GenerateRequest {
        max_tokens: Some(max_tokens),
        sampling: SamplingParams { temperature: 0.0, allowed_token_ids: letters, ..SamplingParams::default() },
        ..GenerateRequest::new(Prompt::Text(prompt.to_owned()))
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub text: String,
    pub tokens: Vec<TokenId>,
    pub finish: Option<Finish>,
    pub failed: Option<String>,
}

/// All events of a request with one choice.
pub fn answer(engine: &EngineHandle, request: GenerateRequest) -> Answer {
    let mut response = engine.submit(request).expect("the request is valid");
    let mut answer = Answer::default();
    while let Some(event) = response.blocking_next() {
        match event {
            Event::Delta(delta) => {
                assert_eq!(answer.finish, None, "nothing comes after the finish");
                answer.text.push_str(&delta.text);
                answer.tokens.extend(delta.tokens);
                answer.finish = delta.finish;
            }
            Event::Failed(error) => answer.failed = Some(error.message),
            Event::Prompt(_) => panic!("nobody asked for prompt log probabilities"),
        }
    }
    answer
}

pub fn finish(reason: FinishReason, matched: Option<StopMatch>) -> Option<Finish> {
    Some(Finish { reason, matched })
}

/// Runs a hook before each wait.
pub struct Hooked<F> {
    inner: SimExecutor,
    before_wait: F,
}

impl<F: FnMut() -> Result<(), ExecutorError>> Executor for Hooked<F> {
    fn capacity(&self) -> &KvCapacity {
        self.inner.capacity()
    }

    fn submit(&mut self, plan: &SchedulerOutput) -> Result<(), ExecutorError> {
        self.inner.submit(plan)
    }

    fn sample(&mut self, masks: &Masks) -> Result<(), ExecutorError> {
        self.inner.sample(masks)
    }

    fn wait(&mut self, out: &mut ModelRunnerOutput) -> Result<(), ExecutorError> {
        (self.before_wait)()?;
        self.inner.wait(out)
    }

    fn control(&mut self, control: &Control) -> Result<(), ExecutorError> {
        self.inner.control(control)
    }
}

pub fn start_hooked(before_wait: impl FnMut() -> Result<(), ExecutorError> + Send + 'static) -> EngineHandle {
    let config = EngineConfig { step_timeout: Duration::ZERO, ..EngineConfig::default() };
    start_on(config, move || Hooked { inner: SimExecutor::new(sim_config()), before_wait })
}
