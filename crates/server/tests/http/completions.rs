//! Text completions: prompts of every kind, echo, scores, and the best of several.

use serde_json::{Value, json};

use crate::fold;
use crate::server::Server;

fn complete(server: &Server, fields: Value) -> Value {
    let reply = server.post("/v1/completions", &request(fields.clone()));
    assert_eq!(reply.status, 200, "{fields}: {}", reply.text());
    reply.json()
}

fn request(fields: Value) -> Value {
    let mut body = json!({"prompt": "Once upon a time", "max_tokens": 6, "seed": 3, "ignore_eos": true});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn tokens_of(server: &Server, prompt: &str) -> Value {
    server.post("/tokenize", &json!({"prompt": prompt})).json()["tokens"].clone()
}

#[test]
fn a_stream_adds_up_to_the_whole_answer() {
    let server = Server::start();
    let tokens = tokens_of(&server, "Once upon a time");
    for fields in [
        json!({}),
        json!({"n": 2, "prompt": ["a", "b c", "d"]}),
        json!({"prompt": tokens}),
        json!({"prompt": [tokens, tokens], "logprobs": 2}),
        json!({"echo": true}),
        json!({"echo": true, "logprobs": 1, "n": 2}),
        json!({"echo": true, "logprobs": 1, "max_tokens": 0}),
        json!({"echo": true, "max_tokens": 0}),
        json!({"logprobs": 0, "stop": ["e"], "max_tokens": 64}),
        json!({"return_token_ids": true, "best_of": 1}),
        json!({"temperature": 0, "suffix": null, "user": "me"}),
    ] {
        complete(&server, fields.clone());
        let whole = complete(&server, fields.clone());
        let mut streamed = request(fields.clone());
        streamed["stream"] = true.into();
        streamed["stream_options"] = json!({"include_usage": true});
        let mut events = server.post("/v1/completions", &streamed).events();
        assert_eq!(events.pop().unwrap()["usage"], whole["usage"], "{fields}");
        assert_eq!(fold::choices(&events), whole["choices"], "{fields}");
    }
}

#[test]
fn an_answer_has_every_required_key() {
    let server = Server::start();
    let answer = complete(&server, json!({}));
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0].get("logprobs"), Some(&Value::Null));
    assert_eq!(answer["usage"]["completion_tokens"], 6);
}

#[test]
fn sixteen_tokens_where_none_are_named() {
    let server = Server::start();
    assert_eq!(complete(&server, json!({"max_tokens": null}))["usage"]["completion_tokens"], 16);
}

#[test]
fn a_prompt_is_scored_without_generating() {
    let server = Server::start();
    let prompt = "Once upon a time";
    let answer = complete(&server, json!({"echo": true, "logprobs": 2, "max_tokens": 0}));
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], prompt);
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    let columns = &choice["logprobs"];
    let num_tokens = tokens_of(&server, prompt).as_array().unwrap().len();
    for column in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(columns[column].as_array().unwrap().len(), num_tokens, "{column}");
    }
    assert!(columns["token_logprobs"][0].is_null() && columns["top_logprobs"][0].is_null());
    assert!(columns["token_logprobs"][1].as_f64().unwrap() <= 0.0);
    let text: String = columns["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(text, prompt);
    assert_eq!(columns["text_offset"][0], 0);
    assert_eq!(columns["text_offset"][1], columns["tokens"][0].as_str().unwrap().chars().count());
}

#[test]
fn scores_go_on_from_the_prompt_into_the_answer() {
    let server = Server::start();
    let alone = complete(&server, json!({"echo": true, "logprobs": 1, "max_tokens": 0}));
    let both = complete(&server, json!({"echo": true, "logprobs": 1}));
    let (alone, both) = (&alone["choices"][0]["logprobs"], &both["choices"][0]["logprobs"]);
    let num_prompt_tokens = alone["tokens"].as_array().unwrap().len();
    for column in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let (alone, both) = (alone[column].as_array().unwrap(), both[column].as_array().unwrap());
        assert_eq!(&both[..num_prompt_tokens], &alone[..], "{column}");
        assert_eq!(both.len(), num_prompt_tokens + 6, "{column}");
    }
}

#[test]
fn token_ids_say_the_same_as_their_text() {
    let server = Server::start();
    let tokens = tokens_of(&server, "Once upon a time");
    assert_eq!(complete(&server, json!({"prompt": tokens}))["choices"], complete(&server, json!({}))["choices"]);
}

#[test]
fn many_prompts_keep_their_order() {
    let server = Server::start();
    let together = complete(&server, json!({"prompt": ["one", "two", "three"], "n": 2}));
    let alone: Vec<Value> = ["one", "two", "three"]
        .into_iter()
        .flat_map(|prompt| complete(&server, json!({"prompt": prompt, "n": 2}))["choices"].as_array().unwrap().clone())
        .collect();
    let choices = together["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 6);
    for (index, (choice, alone)) in choices.iter().zip(&alone).enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["text"], alone["text"], "choice {index}");
    }
}

#[test]
fn the_best_of_several_is_kept() {
    let server = Server::start();
    let every = complete(&server, json!({"n": 4, "logprobs": 0}));
    let score = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).sum::<f64>() / logprobs.len() as f64
    };
    let mut ranked = every["choices"].as_array().unwrap().clone();
    ranked.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let best = complete(&server, json!({"n": 2, "best_of": 4}));
    let texts = |choices: &[Value]| choices.iter().map(|choice| choice["text"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(best["choices"].as_array().unwrap()), texts(&ranked[..2]));
    assert_eq!(best["choices"][1]["index"], 1);
    assert!(best["choices"][0]["logprobs"].is_null(), "nobody asked for them");
    assert_eq!(best["usage"]["completion_tokens"], 24, "all that was generated is counted");
}
