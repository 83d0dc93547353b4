//! Chat completions: the form of an answer, and a stream that adds up to it whatever was asked for.

use serde_json::{Value, json};

use crate::fold;
use crate::server::Server;

fn hello(fields: Value) -> Value {
    let mut body = json!({
        "model": "tiny/model",
        "messages": [{"role": "user", "content": "Hello there"}],
        "max_tokens": 12,
        "seed": 3,
    });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

#[test]
fn an_answer_has_every_required_key() {
    let server = Server::start();
    let answer = server.post("/v1/chat/completions", &hello(json!({}))).json();
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"), "{answer}");
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "tiny/model");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    let choice = &answer["choices"][0];
    assert_eq!(choice["index"], 0);
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(choice["message"]["content"].is_string());
    for (object, key) in [(&choice["message"], "refusal"), (choice, "logprobs")] {
        assert_eq!(object.get(key), Some(&Value::Null), "{key} is required and null");
    }
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()));
    let usage = &answer["usage"];
    let (prompt, completion) = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
    assert_eq!(usage["total_tokens"].as_u64(), prompt.zip(completion).map(|(prompt, completion)| prompt + completion));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 0);
}

/// The sum of a stream is the whole answer: text, log probabilities, finish reasons and counts.
#[test]
fn a_stream_adds_up_to_the_whole_answer() {
    let server = Server::start();
    for fields in [
        json!({}),
        json!({"temperature": 0}),
        json!({"seed": 4, "max_tokens": 1}),
        json!({"seed": -5}),
        json!({"n": 2}),
        json!({"n": 3, "logprobs": true, "top_logprobs": 2}),
        json!({"logprobs": true}),
        json!({"return_token_ids": true, "ignore_eos": true, "max_tokens": 40}),
        json!({"stop": "e", "max_tokens": 64}),
        json!({"stop": ["e", "ab", "\n"], "max_tokens": 64, "include_stop_str_in_output": true}),
        json!({"top_k": 5, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2, "presence_penalty": 0.5}),
        json!({"logit_bias": {"40": 100}, "frequency_penalty": -0.5, "min_tokens": 3}),
        json!({"allowed_token_ids": [40, 41, 42], "bad_words": ["zz"], "skip_special_tokens": false}),
        json!({"user": "me", "metadata": {"a": "b"}, "tool_choice": "none", "response_format": {"type": "text"}}),
    ] {
        // Once before both, so that the prefix cache is as warm for the one as for the other.
        server.post("/v1/chat/completions", &hello(fields.clone()));
        let whole = server.post("/v1/chat/completions", &hello(fields.clone()));
        assert_eq!(whole.status, 200, "{fields}: {}", whole.text());
        let options = json!({"stream": true, "stream_options": {"include_usage": true}});
        let body = with(
            with(hello(fields.clone()), "stream", json!(true)),
            "stream_options",
            options["stream_options"].clone(),
        );
        let mut events = server.post("/v1/chat/completions", &body).events();
        let last = events.pop().unwrap();
        assert_eq!(last["choices"], json!([]), "{fields}");
        assert_eq!(last["usage"], whole.json()["usage"], "{fields}");
        assert!(events.iter().all(|event| event.get("usage") == Some(&Value::Null)), "{fields}");
        assert!(events.iter().all(|event| event["id"] == events[0]["id"]), "{fields}");
        assert_eq!(fold::choices(&events), whole.json()["choices"], "{fields}");
        assert_eq!(events[0].get("prompt_token_ids"), whole.json().get("prompt_token_ids"), "{fields}");
    }
}

#[test]
fn usage_stays_out_of_streams_that_did_not_ask() {
    let server = Server::start();
    let events = server.post("/v1/chat/completions", &hello(json!({"stream": true}))).events();
    assert!(events.iter().all(|event| event.get("usage").is_none() && event["choices"] != json!([])));
}

#[test]
fn a_stream_has_one_role_and_one_finish_per_choice() {
    let server = Server::start();
    let reply = server.post("/v1/chat/completions", &hello(json!({"stream": true, "n": 3})));
    assert!(reply.headers["content-type"].starts_with("text/event-stream"));
    assert_eq!(reply.headers["x-accel-buffering"], "no");
    let events = reply.events();
    let choices: Vec<&Value> = events.iter().map(|event| &event["choices"][0]).collect();
    for index in 0..3 {
        let own: Vec<_> = choices.iter().filter(|choice| choice["index"] == index).collect();
        assert_eq!(own[0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(own.iter().filter(|choice| choice["delta"].get("role").is_some()).count(), 1);
        assert_eq!(own.iter().filter(|choice| !choice["finish_reason"].is_null()).count(), 1);
        assert_eq!(own.last().unwrap()["delta"], json!({}));
    }
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_another() {
    let server = Server::start();
    let content = |seed: i64| {
        let body = hello(json!({"seed": seed, "ignore_eos": true, "max_tokens": 32}));
        server.post("/v1/chat/completions", &body).json()["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(content(1), content(1));
    assert_ne!(content(1), content(2));
}

#[test]
fn a_stop_string_cuts_the_text_before_itself() {
    let server = Server::start();
    let long = json!({"ignore_eos": true, "max_tokens": 48});
    let full = server.post("/v1/chat/completions", &hello(long.clone())).json();
    let full = full["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let characters: Vec<char> = full.chars().collect();
    let stop: String = characters[characters.len() / 2..][..2].iter().collect();
    let body = with(hello(long), "stop", json!([stop]));
    let stopped = server.post("/v1/chat/completions", &body).json();
    let choice = &stopped["choices"][0];
    assert_eq!(choice["message"]["content"], full[..full.find(&stop).unwrap()]);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], json!(stop));
    let kept = server.post("/v1/chat/completions", &with(body, "include_stop_str_in_output", json!(true))).json();
    assert_eq!(kept["choices"][0]["message"]["content"], full[..full.find(&stop).unwrap() + stop.len()]);
}

#[test]
fn logprobs_come_one_per_token() {
    let server = Server::start();
    let body = hello(json!({"logprobs": true, "top_logprobs": 3, "ignore_eos": true}));
    let choice = server.post("/v1/chat/completions", &body).json()["choices"][0].clone();
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 12);
    assert_eq!(choice["logprobs"]["refusal"], Value::Null);
    for token in tokens {
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3, "{token}");
        for entry in token["top_logprobs"].as_array().unwrap().iter().chain([token]) {
            assert!(entry["token"].is_string() && entry["bytes"].is_array(), "{entry}");
            assert!(entry["logprob"].as_f64().unwrap() <= 0.0, "{entry}");
        }
    }
}

#[test]
fn prompt_logprobs_are_by_token_id() {
    let server = Server::start();
    let body = hello(json!({"prompt_logprobs": 2, "return_token_ids": true, "max_tokens": 1}));
    let answer = server.post("/v1/chat/completions", &body).json();
    let tokens = answer["prompt_token_ids"].as_array().unwrap();
    let logprobs = answer["prompt_logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), logprobs.len());
    assert_eq!(tokens.len() as u64, answer["usage"]["prompt_tokens"].as_u64().unwrap());
    assert!(logprobs[0].is_null());
    for (token, entry) in tokens.iter().zip(logprobs).skip(1) {
        assert!(entry[token.to_string()]["logprob"].as_f64().unwrap() <= 0.0, "{token}: {entry}");
    }
}

#[test]
fn a_prompt_asked_again_is_cached() {
    let server = Server::start();
    let long = "a long prompt that fills some blocks ".repeat(8);
    let body = json!({"messages": [{"role": "user", "content": long}], "max_tokens": 1});
    let cached = |body: &Value| {
        let usage = server.post("/v1/chat/completions", body).json()["usage"].clone();
        (usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(), usage["prompt_tokens"].as_u64().unwrap())
    };
    assert_eq!(cached(&body).0, 0);
    let (again, prompt) = cached(&body);
    assert!(0 < again && again < prompt, "{again} of {prompt}");
    assert_eq!(cached(&with(body, "cache_salt", json!("other"))).0, 0, "another salt shares nothing");
}

#[test]
fn a_message_is_continued_and_echoed() {
    let server = Server::start();
    let messages = json!([
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]},
        {"role": "assistant", "content": "Well met, "},
    ]);
    let body = json!({
        "messages": messages, "continue_final_message": true, "echo": true, "max_tokens": 4, "ignore_eos": true,
        "seed": 1,
    });
    let whole = server.post("/v1/chat/completions", &body).json();
    let content = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.starts_with("Well met, ") && content.len() > "Well met, ".len(), "{content}");
    let events = server.post("/v1/chat/completions", &with(body, "stream", json!(true))).events();
    assert_eq!(fold::choices(&events), whole["choices"]);
}

#[test]
fn requests_without_a_seed_draw_from_the_servers() {
    let texts = |seed: Option<u64>| {
        let server = Server::with(|setup| setup.config.seed = seed);
        let body = hello(json!({"seed": null, "ignore_eos": true}));
        [(); 2].map(|()| server.post("/v1/chat/completions", &body).json()["choices"][0]["message"]["content"].clone())
    };
    let first = texts(Some(1));
    assert_ne!(first[0], first[1]);
    assert_eq!(first, texts(Some(1)));
    assert_ne!(first, texts(Some(2)));
    assert_ne!(texts(None), texts(None));
}
