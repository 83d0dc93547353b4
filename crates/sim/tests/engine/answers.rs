//! What clients get.

use std::time::Duration;

use engine::{ChatPrompt, EngineConfig, Event, FinishReason, GenerateRequest, Prompt, StopMatch, SubmitError};
use serde_json::json;

use crate::support::{END, MAX_LEN, answer, finish, request, start};

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
