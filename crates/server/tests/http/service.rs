//! Everything beside the completions: models, tokens, keys, probes, headers, metrics.

use serde_json::json;

use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";

#[test]
fn models_are_listed_and_found_by_names_with_slashes() {
    let server = Server::with(|setup| setup.config.served_model_names.push("org/team/other".into()));
    let list = server.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["tiny/model", "org/team/other"]);
    for (index, name) in names.into_iter().enumerate() {
        assert_eq!(server.get(&format!("/v1/models/{name}")).json(), list["data"][index]);
    }
    let encoded = server.get("/v1/models/tiny%2Fmodel");
    assert_eq!(encoded.json()["id"], "tiny/model");
    let missing = server.get("/v1/models/tiny/nothing");
    assert_eq!((missing.status, &missing.error()["code"]), (404, &json!("model_not_found")));
    let body = json!({"model": "org/team/other", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    assert_eq!(server.post(CHAT, &body).json()["model"], "org/team/other");
}

#[test]
fn tokens_go_there_and_back() {
    let server = Server::start();
    let text = "Grüße, world! <|im_end|> 🦀";
    let there = server.post("/tokenize", &json!({"prompt": text, "return_token_strs": true})).json();
    assert_eq!(there["count"].as_u64().unwrap() as usize, there["tokens"].as_array().unwrap().len());
    assert_eq!(there["token_strs"].as_array().unwrap().len(), there["tokens"].as_array().unwrap().len());
    assert_eq!(there["max_model_len"], server.engine.max_model_len());
    let back = server.post("/detokenize", &json!({"tokens": there["tokens"]})).json();
    assert_eq!(back, json!({"prompt": text}));
}

#[test]
fn a_chat_is_tokenized_as_it_is_answered() {
    let server = Server::start();
    let messages = json!([{"role": "user", "content": "hi"}]);
    let tokens = server.post("/tokenize", &json!({"messages": messages})).json();
    assert_eq!(tokens["token_strs"], json!(null));
    let body = json!({"messages": messages, "max_tokens": 1, "return_token_ids": true});
    let answer = server.post(CHAT, &body).json();
    assert_eq!(answer["prompt_token_ids"], tokens["tokens"]);
    assert_eq!(answer["usage"]["prompt_tokens"], tokens["count"]);
}

#[test]
fn without_a_key_only_the_probes_answer() {
    let server = Server::with(|setup| setup.config.api_keys = vec!["first-key".into(), "second-key".into()]);
    let status = |path: &str, authorization: &str| {
        let headers: &[(&str, &str)] = if authorization.is_empty() { &[] } else { &[("authorization", authorization)] };
        server.send("GET", path, headers, b"").status
    };
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(status(path, ""), 200, "{path}");
    }
    for path in ["/v1/models", "/v1/models/tiny/model", "/metrics", "/version", "/nowhere", CHAT, "/tokenize"] {
        assert_eq!(status(path, ""), 401, "{path}");
    }
    for (authorization, expected) in [
        ("Bearer first-key", 200),
        ("bearer second-key", 200),
        ("Bearer first-ke", 401),
        ("Bearer first-keyy", 401),
        ("Bearer ", 401),
        ("Basic first-key", 401),
        ("first-key", 401),
    ] {
        assert_eq!(status("/v1/models", authorization), expected, "{authorization}");
    }
    let reply = server.send("GET", "/v1/models", &[], b"");
    assert_eq!(reply.error()["code"], "invalid_api_key");
    assert_eq!(reply.headers["www-authenticate"], "Bearer");
}

#[test]
fn keys_do_not_share_cached_prefixes() {
    let server = Server::with(|setup| setup.config.api_keys = vec!["a".into(), "b".into()]);
    let content = "a prompt that two keys happen to share ".repeat(8);
    let body = json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1}).to_string();
    let cached = |key: &str| {
        let reply = server.send("POST", CHAT, &[("authorization", &format!("Bearer {key}"))], body.as_bytes());
        reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached("a"), 0);
    assert!(cached("a") > 0);
    assert_eq!(cached("b"), 0);
}

#[test]
fn every_answer_has_its_headers() {
    let server = Server::start();
    let long = "x".repeat(513);
    for (given, echoed) in [
        (Some("my-request/17"), true),
        (Some(&long[..512]), true),
        (Some(&long[..]), false),
        (Some("tab\there"), false),
        (Some("ünïcode"), false),
        (Some(""), false),
        (None, false),
    ] {
        let headers: Vec<_> = given.iter().map(|id| ("x-request-id", *id)).collect();
        for path in ["/livez", "/nowhere"] {
            let reply = server.send("GET", path, &headers, b"");
            let id = &reply.headers["x-request-id"];
            assert_eq!(given == Some(id.as_str()), echoed, "{given:?} became {id}");
            assert!(!id.is_empty());
            assert!(reply.headers["openai-processing-ms"].parse::<u64>().is_ok());
            assert_eq!(reply.headers["openai-version"], "2020-10-01");
        }
    }
}

#[test]
fn metrics_count_what_happened() {
    let server = Server::start();
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"messages": messages, "max_tokens": 5, "ignore_eos": true, "n": 2});
    let usage = server.post(CHAT, &body).json()["usage"].clone();
    server.post(CHAT, &json!({"messages": messages, "max_tokens": 100_000}));
    server.wait_until("the request has left the engine", |stats| stats.running == 0 && stats.generation_tokens >= 10);
    let blocks = format!("vllm:cache_config_info{{num_gpu_blocks=\"{}\"}}", server.engine.stats().kv_blocks_total);
    for (name, expected) in [
        ("vllm:num_requests_running", 0.0),
        ("vllm:num_requests_waiting", 0.0),
        ("vllm:kv_cache_usage_perc", 0.0),
        ("vllm:generation_tokens_total", 10.0),
        ("vllm:request_success_total{finished_reason=\"length\"}", 2.0),
        ("vllm:request_success_total{finished_reason=\"abort\"}", 0.0),
        ("vllm:admission_rejections_total{reason=\"context_length\"}", 1.0),
        ("vllm:request_generation_tokens_sum", 10.0),
        ("vllm:request_prompt_tokens_sum", usage["prompt_tokens"].as_f64().unwrap()),
        ("vllm:time_to_first_token_seconds_count", 1.0),
        ("vllm:inter_token_latency_seconds_count", 8.0),
        ("vllm:request_time_per_output_token_seconds_count", 1.0),
        ("vllm:e2e_request_latency_seconds_count", 1.0),
        ("vllm:request_queue_time_seconds_count", 1.0),
        ("vllm:request_prefill_time_seconds_count", 1.0),
        ("vllm:request_decode_time_seconds_count", 1.0),
        ("vllm:request_inference_time_seconds_count", 1.0),
        ("vllm:cache_config_info{block_size=\"16\",enable_prefix_caching=\"True\"}", 1.0),
        (blocks.as_str(), 1.0),
    ] {
        assert_eq!(server.metric(name), expected, "{name}");
    }
    for name in [
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:num_preemptions_total",
        "vllm:prompt_tokens_total",
        "vllm:prompt_tokens_cached_total",
        "vllm:iteration_tokens_total_count",
    ] {
        assert!(server.metric(name) >= 0.0, "{name}");
    }
}

#[test]
fn the_version_is_that_of_the_program() {
    assert_eq!(Server::start().get("/version").json(), json!({"version": env!("CARGO_PKG_VERSION")}));
}
