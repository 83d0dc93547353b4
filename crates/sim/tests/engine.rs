//! The real engine thread and handle, with a byte tokenizer above and the simulated executor below.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::{Control, Executor, ExecutorError, KvCapacity, Masks, ModelRunnerOutput, SchedulerOutput};
use engine::{
    ChatPrompt, EngineConfig, EngineHandle, Event, Finish, FinishReason, GenerateRequest, Prompt, SamplingParams,
    State, StopMatch, SubmitError, TokenId,
};
use serde_json::json;
use sim::{SimConfig, SimExecutor};
use text::{GgufVocab, TextModel, Tokenizer};

const END: TokenId = 256;
const MAX_LEN: u32 = 128;

/// A token per byte, an end token, and a template that writes the contents.
fn text_model() -> Arc<TextModel> {
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

fn sim_config() -> SimConfig {
    SimConfig::plain(257, MAX_LEN)
}

fn start(config: EngineConfig) -> EngineHandle {
    start_on(config, || SimExecutor::new(sim_config()))
}

fn start_on<E: Executor + 'static>(
    config: EngineConfig,
    executor: impl FnOnce() -> E + Send + 'static,
) -> EngineHandle {
    engine::start(config, text_model(), move || Ok(Box::new(executor()))).expect("the engine starts")
}

/// Samples letters only, and never the end.
fn request(prompt: &str, max_tokens: u32) -> GenerateRequest {
    let letters = (b'a'..=b'z').map(TokenId::from).collect();
    GenerateRequest {
        max_tokens: Some(max_tokens),
        sampling: SamplingParams { temperature: 0.0, allowed_token_ids: letters, ..SamplingParams::default() },
        ..GenerateRequest::new(Prompt::Text(prompt.to_owned()))
    }
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    tokens: Vec<TokenId>,
    finish: Option<Finish>,
    failed: Option<String>,
}

/// All events of a request with one choice.
fn answer(engine: &EngineHandle, request: GenerateRequest) -> Answer {
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

fn finish(reason: FinishReason, matched: Option<StopMatch>) -> Option<Finish> {
    Some(Finish { reason, matched })
}

#[test]
fn text_does_not_depend_on_company_or_cache() {
    let engine = start(EngineConfig::default());
    let prompt = "the same beginning of more than two blocks of tokens";
    let alone = answer(&engine, request(prompt, 20));
    assert_eq!((alone.tokens.len(), alone.text.len()), (20, 20));
    assert_eq!(alone.finish, finish(FinishReason::Length, None));
    let mut crowd: Vec<_> = (0..9).map(|_| engine.submit(request(prompt, 20)).expect("valid")).collect();
    for response in &mut crowd {
        let mut text = String::new();
        while let Some(event) = response.blocking_next() {
            let Event::Delta(delta) = event else { panic!("{event:?}") };
            text.push_str(&delta.text);
        }
        assert_eq!(text, alone.text);
        let (usage, timing) = (response.usage(), response.timing());
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens), (52, 20, 48));
        assert!(timing.scheduled <= timing.first_token && timing.first_token <= timing.finished);
        assert!(timing.scheduled.is_some());
    }
    engine.shutdown(Duration::from_secs(60));
    let stats = engine.stats();
    assert_eq!((stats.requests_finished, stats.generation_tokens), (10, 200));
    assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0));
    assert_eq!((stats.prefix_cache_queries, stats.prefix_cache_hits), (520, 9 * 48));
}

#[test]
fn prefixes_are_shared_within_a_salt_and_only_where_caching_is_on() {
    let salted = |salt: Option<&str>| GenerateRequest {
        cache_salt: salt.map(str::to_owned),
        ..request("a prompt that fills a block and some more", 1)
    };
    for (enable_prefix_caching, first, second, cached) in [
        (true, None, None, 32),
        (true, Some("a"), Some("a"), 32),
        (true, Some("a"), Some("b"), 0),
        (true, None, Some(""), 0),
        (false, None, None, 0),
    ] {
        let engine = start(EngineConfig { enable_prefix_caching, ..EngineConfig::default() });
        answer(&engine, salted(first));
        let mut response = engine.submit(salted(second)).expect("valid");
        while response.blocking_next().is_some() {}
        assert_eq!(response.usage().cached_tokens, cached, "{enable_prefix_caching} {first:?} {second:?}");
    }
}

#[test]
fn a_stop_string_ends_the_choice_and_its_sequence() {
    let engine = start(EngineConfig::default());
    let all = answer(&engine, request("stop", 40)).text;
    let stop = all[10..13].to_owned();
    let at = all.find(&stop).expect("it is there");
    for include_stop_str_in_output in [false, true] {
        let stopped = GenerateRequest { stop: vec![stop.clone()], include_stop_str_in_output, ..request("stop", 100) };
        let answer = answer(&engine, stopped);
        let end = if include_stop_str_in_output { at + 3 } else { at };
        assert_eq!(answer.text, all[..end]);
        assert_eq!(answer.tokens.len(), at + 3);
        assert_eq!(answer.finish, finish(FinishReason::Stop, Some(StopMatch::String(stop.clone()))));
    }
    engine.shutdown(Duration::from_secs(60));
    assert_eq!((engine.stats().requests_finished, engine.stats().kv_blocks_used), (3, 0));
}

#[test]
fn stop_tokens_end_silently_and_only_the_clients_are_named() {
    let engine = start(EngineConfig::default());
    let all = answer(&engine, request("token", 40));
    let token = all.tokens[5];
    let at = all.tokens.iter().position(|&other| other == token).expect("it is there");
    let mut stopped = request("token", 40);
    stopped.sampling.stop_token_ids = vec![token];
    let stopped = answer(&engine, stopped);
    assert_eq!((stopped.text.as_str(), stopped.tokens.len()), (&all.text[..at], at + 1));
    assert_eq!(stopped.finish, finish(FinishReason::Stop, Some(StopMatch::Token(token))));
    let mut ended = request("token", 40);
    ended.sampling.allowed_token_ids = vec![END];
    assert_eq!(answer(&engine, ended.clone()).finish, finish(FinishReason::Stop, None));
    ended.ignore_eos = true;
    assert_eq!(answer(&engine, ended).finish, finish(FinishReason::Length, None));
}

#[test]
fn choices_differ_by_seed_and_prompt_logprobs_come_first_and_once() {
    let engine = start(EngineConfig::default());
    let mut asked = GenerateRequest { n: 3, ..request("several choices of one prompt", 12) };
    asked.sampling.temperature = 1.0;
    asked.sampling.prompt_logprobs = Some(1);
    asked.sampling.logprobs = Some(2);
    let mut response = engine.submit(asked).expect("valid");
    let Some(Event::Prompt(prompt)) = response.blocking_next() else { panic!("the prompt comes first") };
    assert_eq!((prompt.len(), prompt.iter().flatten().count()), (29, 28));
    assert!(prompt[0].is_none() && prompt.iter().flatten().all(|entry| entry.top.len() == 1));
    let mut texts = vec![String::new(); 3];
    while let Some(event) = response.blocking_next() {
        let Event::Delta(delta) = event else { panic!("{event:?}") };
        assert_eq!((delta.tokens.len(), delta.logprobs.len()), (1, 1));
        assert_eq!((delta.logprobs[0].token, delta.logprobs[0].top.len()), (delta.tokens[0], 2));
        texts[delta.index as usize].push_str(&delta.text);
    }
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    assert_eq!(response.usage().completion_tokens, 36);
}

#[test]
fn a_prompt_can_be_scored_without_any_output() {
    let engine = start(EngineConfig::default());
    for prompt in ["x", "xyz"] {
        let mut asked = request(prompt, 0);
        asked.sampling.prompt_logprobs = Some(0);
        let mut response = engine.submit(asked).expect("valid");
        let Some(Event::Prompt(entries)) = response.blocking_next() else { panic!("the prompt comes first") };
        assert_eq!(entries.len(), prompt.len());
        let Some(Event::Delta(delta)) = response.blocking_next() else { panic!("then the end") };
        assert_eq!((delta.tokens.len(), delta.finish), (0, finish(FinishReason::Length, None)));
        assert!(response.blocking_next().is_none());
    }
}

#[test]
fn a_dropped_response_aborts_its_request() {
    let (release, hold): (_, Receiver<()>) = channel();
    let hold = Mutex::new(hold);
    let engine = start_hooked(move || {
        hold.lock().expect("nobody panics").recv().ok();
        Ok(())
    });
    let mut response = engine.submit(request("dropped", 100)).expect("valid");
    release.send(()).expect("the engine waits");
    response.blocking_next();
    drop(response);
    drop(engine.submit(request("dropped at once", 100)));
    drop(release);
    engine.shutdown(Duration::from_secs(60));
    let stats = engine.stats();
    assert_eq!((stats.requests_finished, stats.requests_aborted, stats.kv_blocks_used), (0, 2, 0));
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let engine = start(EngineConfig::default());
    let bad = |change: fn(&mut GenerateRequest)| {
        let mut request = request("x", 4);
        change(&mut request);
        engine.submit(request).err().expect("it is refused")
    };
    let param = |error: SubmitError| match error {
        SubmitError::Invalid { param, .. } => param,
        other => panic!("{other}"),
    };
    assert_eq!(param(bad(|request| request.prompt = Prompt::Text(String::new()))), "prompt");
    assert_eq!(param(bad(|request| request.prompt = Prompt::Tokens(vec![257]))), "prompt");
    assert_eq!(param(bad(|request| request.sampling.min_tokens = 5)), "min_tokens");
    assert_eq!(param(bad(|request| request.sampling.top_p = 7.0)), "top_p");
    let too_long =
        |prompt_tokens, max_tokens| SubmitError::ContextLength { max_model_len: MAX_LEN, prompt_tokens, max_tokens };
    assert_eq!(bad(|request| request.max_tokens = Some(128)), too_long(1, 128));
    assert_eq!(bad(|request| request.prompt = Prompt::Tokens(vec![1; 129])), too_long(129, 4));
    let bytes = bad(|request| request.prompt = Prompt::Text("long ".repeat(1000)));
    assert!(matches!(bytes, SubmitError::ContextLength { prompt_tokens: 129..=5000, .. }), "{bytes}");
    let chat =
        ChatPrompt { messages: vec![json!({"role": "user", "content": "y".repeat(1000)})], ..ChatPrompt::default() };
    assert!(engine.render_chat(&chat).is_err());
}

#[test]
fn the_rest_of_the_context_is_the_default_length() {
    let engine = start(EngineConfig::default());
    let rest = GenerateRequest { max_tokens: None, ..request("0123456789", 0) };
    assert_eq!(answer(&engine, rest.clone()).tokens.len(), 118);
    let engine = start(EngineConfig { default_max_tokens: Some(7), ..EngineConfig::default() });
    assert_eq!(answer(&engine, rest).tokens.len(), 7);
}

#[test]
fn a_full_queue_refuses_and_a_draining_engine_finishes() {
    let full = start(EngineConfig { max_num_queued_reqs: 0, ..EngineConfig::default() });
    let refused = full.submit(request("x", 1)).err();
    assert!(matches!(refused, Some(SubmitError::Overloaded { queued: 0, .. })), "{refused:?}");

    let engine = start(EngineConfig::default());
    let mut response = engine.submit(request("x", 30)).expect("valid");
    engine.drain();
    assert_eq!(engine.health().state, State::Draining);
    assert_eq!(engine.submit(request("x", 1)).err(), Some(SubmitError::Draining));
    engine.shutdown(Duration::from_secs(60));
    assert_eq!(engine.health().state, State::Stopped);
    assert_eq!(engine.submit(request("x", 1)).err(), Some(SubmitError::Stopped));
    assert_eq!(std::iter::from_fn(|| response.blocking_next()).count(), 30, "what was running has finished");
}

#[test]
fn an_executor_that_cannot_be_built_is_a_sentence() {
    let outcome = engine::start(EngineConfig::default(), text_model(), || Err("no such device".to_owned()));
    assert_eq!(outcome.err().map(|error| error.to_string()), Some("no such device".to_owned()));
}

/// Runs a hook before each wait.
struct Hooked<F> {
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

fn start_hooked(before_wait: impl FnMut() -> Result<(), ExecutorError> + Send + 'static) -> EngineHandle {
    let config = EngineConfig { step_timeout: Duration::ZERO, ..EngineConfig::default() };
    start_on(config, move || Hooked { inner: SimExecutor::new(sim_config()), before_wait })
}

#[test]
fn a_panic_in_a_step_fails_its_requests_and_the_engine_goes_on() {
    let mut waits = 0;
    let engine = start_hooked(move || {
        waits += 1;
        assert_ne!(waits, 3, "a bug");
        Ok(())
    });
    let failed = answer(&engine, request("unlucky", 10));
    assert_eq!((failed.tokens.len(), failed.finish), (2, None));
    assert!(failed.failed.is_some_and(|message| message.contains("internal error")));
    let next = answer(&engine, request("lucky", 10));
    assert_eq!((next.tokens.len(), next.failed), (10, None));
    assert_eq!(engine.health().state, State::Ready);
}

#[test]
fn a_loss_is_replayed_and_nobody_notices() {
    let expected = answer(&start(EngineConfig::default()), request("replayed", 30));
    let mut waits = 0;
    let engine = start_hooked(move || {
        waits += 1;
        if waits % 7 == 0 { Err(ExecutorError::Lost("a device error".to_owned())) } else { Ok(()) }
    });
    // Lost three times in 21 steps is one time too often; ten tokens lose the device only once.
    assert_eq!(answer(&engine, request("replayed", 10)).text, expected.text[..10]);
    assert_eq!(engine.stats().executor_losses, 1);
}

#[test]
fn a_device_that_never_comes_back_stops_the_engine() {
    let engine = start_hooked(|| Err(ExecutorError::Lost("gone".to_owned())));
    let mut failures = 0;
    while engine.health().state == State::Ready {
        match engine.submit(request("x", 1)) {
            Ok(mut response) => failures += usize::from(matches!(response.blocking_next(), Some(Event::Failed(_)))),
            Err(error) => assert_eq!(error, SubmitError::Stopped),
        }
    }
    assert!(failures >= 3, "each request fails after three losses, the engine after nine: {failures}");
    assert_eq!(engine.health().state, State::Stopped);
}

#[test]
fn a_hanging_step_is_overdue_for_whoever_asks() {
    let (release, hold): (_, Receiver<()>) = channel();
    let hold = Mutex::new(hold);
    let engine = start_hooked(move || {
        hold.lock().expect("nobody panics").recv().ok();
        Ok(())
    });
    assert_eq!(engine.health().overdue, None, "an idle engine is never overdue");
    let mut response = engine.submit(request("x", 1)).expect("valid");
    while engine.health().overdue.is_none() {
        std::thread::yield_now();
    }
    drop(release);
    while response.blocking_next().is_some() {}
    engine.shutdown(Duration::from_secs(60));
    assert_eq!(engine.health().overdue, None);
}

#[test]
fn a_shutdown_without_patience_fails_what_still_runs() {
    let (release, hold): (_, Receiver<()>) = channel();
    let hold = Mutex::new(hold);
    let engine = start_hooked(move || {
        hold.lock().expect("nobody panics").recv().ok();
        Ok(())
    });
    let mut response = engine.submit(request("x", 100)).expect("valid");
    release.send(()).expect("the engine waits");
    assert!(matches!(response.blocking_next(), Some(Event::Delta(_))));
    let stopping = engine.clone();
    let shutdown = std::thread::spawn(move || stopping.shutdown(Duration::ZERO));
    while engine.health().state == State::Ready {
        std::thread::yield_now();
    }
    // Steps go on one by one until the message to stop has arrived.
    while release.send(()).is_ok() {}
    shutdown.join().expect("the shutdown returns");
    let events: Vec<_> = std::iter::from_fn(|| response.blocking_next()).collect();
    assert!(
        matches!(events.last(), Some(Event::Failed(error)) if error.message.contains("shutting down")),
        "{events:?}"
    );
}
