//! Clients that leave, an engine that hangs, a server that ends, and many clients at once.

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{self, head};
use crate::fold;
use crate::server::{Health, Server};

const CHAT: &str = "/v1/chat/completions";
/// What a step takes where a test needs requests to last.
const PACE: Duration = Duration::from_millis(2);

fn endless(seed: u32) -> Value {
    json!({
        "messages": [{"role": "user", "content": "Tell me everything."}],
        "seed": seed, "ignore_eos": true, "stream": true,
    })
}

fn tokens_to_the_end(server: &Server) -> u64 {
    u64::from(server.engine.max_model_len()) / 2
}

#[test]
fn a_client_that_leaves_a_stream_frees_its_blocks() {
    let server = Server::with(|setup| setup.pace = PACE);
    let mut stream = server.begin("POST", CHAT, &endless(1));
    for _ in 0..3 {
        assert!(stream.event().is_some());
    }
    assert!(server.engine.stats().kv_blocks_used > 0);
    drop(stream);
    server.wait_until("the blocks are free", |stats| stats.running == 0 && stats.kv_blocks_used == 0);
    assert!(server.engine.stats().generation_tokens < tokens_to_the_end(&server), "it was not just over");
    assert_eq!(server.metric("vllm:request_success_total{finished_reason=\"abort\"}"), 1.0);
}

#[test]
fn a_client_that_leaves_before_the_answer_frees_its_blocks() {
    let server = Server::with(|setup| setup.pace = PACE);
    let mut body = endless(1);
    body["stream"] = false.into();
    let body = body.to_string();
    let mut connection = client::connect(server.addr);
    let head = head("POST", CHAT, &[("content-length", &body.len().to_string())]);
    connection.write_all((head + &body).as_bytes()).unwrap();
    server.wait_until("the request runs", |stats| stats.running == 1 && stats.generation_tokens > 0);
    drop(connection);
    server.wait_until("the blocks are free", |stats| stats.running == 0 && stats.kv_blocks_used == 0);
    assert!(server.engine.stats().generation_tokens < tokens_to_the_end(&server), "it was not just over");
}

#[test]
fn garbage_from_one_client_does_not_reach_another() {
    let server = Server::start();
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "seed": 5, "max_tokens": 64, "ignore_eos": true,
        "stream": true,
    });
    let alone = fold::choices(&server.post(CHAT, &body).events());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..50_u8 {
                let garbage: Vec<u8> = (0..200).map(|byte: u8| byte.wrapping_mul(round).wrapping_add(round)).collect();
                assert_eq!(server.send("POST", CHAT, &[], &garbage).status, 400);
                client::connect(server.addr).write_all(&garbage).unwrap();
                drop(server.begin("POST", CHAT, &endless(round.into())));
            }
        });
        for _ in 0..10 {
            assert_eq!(fold::choices(&server.post(CHAT, &body).events()), alone);
        }
    });
    server
        .wait_until("nothing is left behind", |stats| stats.running + stats.waiting == 0 && stats.kv_blocks_used == 0);
}

#[test]
fn thirty_two_streams_run_side_by_side() {
    let server = Server::start();
    let body = |number: u32| {
        json!({
            "messages": [{"role": "user", "content": format!("This is request {number}.")}],
            "seed": number, "max_tokens": 24, "ignore_eos": true, "stream": true, "return_token_ids": true,
        })
    };
    let together: Vec<Value> = thread::scope(|scope| {
        let clients: Vec<_> = (0..32)
            .map(|number| {
                scope.spawn({
                    let (server, body) = (&server, body(number));
                    move || server.post(CHAT, &body).events()
                })
            })
            .collect();
        clients.into_iter().map(|client| fold::choices(&client.join().unwrap())).collect()
    });
    for (number, choices) in together.iter().enumerate() {
        assert_eq!(choices[0]["token_ids"].as_array().unwrap().len(), 24, "request {number}");
        assert_eq!(choices[0]["finish_reason"], "length", "request {number}");
        let alone = fold::choices(&server.post(CHAT, &body(number as u32)).events());
        assert_eq!(choices, &alone, "request {number} is the same alone");
    }
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let server = Server::with(|setup| {
        setup.engine.max_num_seqs = 1;
        setup.engine.max_num_queued_reqs = 1;
        setup.pace = PACE;
    });
    let _running = server.begin("POST", CHAT, &endless(1));
    server.wait_until("one runs", |stats| stats.running == 1);
    let _waiting = server.begin("POST", CHAT, &endless(2));
    server.wait_until("one waits", |stats| stats.waiting == 1);
    let reply = server.post(CHAT, &endless(3));
    assert_eq!((reply.status, &reply.error()["code"]), (429, &json!("rate_limit_exceeded")), "{}", reply.text());
    let seconds: u64 = reply.headers["retry-after"].parse().unwrap();
    let milliseconds: u64 = reply.headers["retry-after-ms"].parse().unwrap();
    assert!(seconds >= 1 && milliseconds <= seconds * 1000);
    assert_eq!(server.metric("vllm:admission_rejections_total{reason=\"queue_full\"}"), 1.0);
}

#[test]
fn running_requests_finish_while_the_server_ends() {
    let server = Server::start();
    let mut body = endless(1);
    body["max_tokens"] = 100.into();
    let steps = server.hold_steps();
    let running = server.begin("POST", CHAT, &body);
    server.stop();
    server.wait_for_status("/readyz", 503);
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/health").status, 200, "an engine that finishes its work is healthy");
    let refused = server.post(CHAT, &body);
    assert_eq!((refused.status, &refused.error()["code"]), (503, &json!("server_is_overloaded")));
    assert_eq!(refused.error()["type"], "service_unavailable_error");
    assert!(refused.headers.contains_key("retry-after"));
    drop(steps);
    let events = running.finish().events();
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[test]
fn requests_that_outlast_the_timeout_end_with_an_error() {
    let server = Server::with(|setup| {
        setup.pace = PACE;
        setup.config.shutdown_timeout = Duration::ZERO;
    });
    let mut running = server.begin("POST", CHAT, &endless(1));
    assert!(running.event().is_some());
    server.stop();
    let text = running.finish().text();
    let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert!(last["error"]["message"].is_string(), "{last}");
    assert!(!text.contains("[DONE]"), "an end that is no good end has no mark");
    assert!(!text.contains("finish_reason\":\""), "and nothing is made up");
}

#[test]
fn an_engine_that_hangs_is_not_healthy() {
    let server = Server::with(|setup| setup.engine.step_timeout = Duration::from_millis(5));
    assert_eq!(server.get("/health").status, 200);
    let gate = server.hold_steps();
    let stream = server.begin("POST", CHAT, &endless(1));
    server.wait_for_status("/health", 503);
    assert_eq!(server.get("/health").json()["status"], "stalled");
    assert_eq!(server.get("/readyz").status, 503);
    assert_eq!(server.get("/livez").status, 200);
    drop(gate);
    drop(stream);
    server.wait_for_status("/health", 200);
}

#[test]
fn a_server_ends_with_its_engine() {
    let server = Server::with(|setup| setup.health = Health::Lost);
    // Each request fails after three losses, the engine after nine.
    let mut body = endless(1);
    body["stream"] = false.into();
    let statuses = [(); 3].map(|()| server.post(CHAT, &body).status);
    assert_eq!(statuses, [500; 3]);
    let end = server.ended().unwrap_err().to_string();
    assert!(
        end.contains("its engine has given up: The device failed 9 times in a row") && end.ends_with("gone"),
        "{end}"
    );
}

#[test]
fn a_server_ends_with_a_device_that_panics_for_good() {
    let server = Server::with(|setup| setup.health = Health::Panics);
    let mut body = endless(1);
    body["stream"] = false.into();
    assert_eq!(server.post(CHAT, &body).status, 500);
    let end = server.ended().unwrap_err().to_string();
    assert!(end.contains("its engine has given up") && end.ends_with("burnt out"), "{end}");
}

#[test]
fn a_silent_stream_is_kept_alive() {
    let server = Server::with(|setup| setup.config.timeouts.keep_alive = Duration::from_millis(5));
    let gate = server.hold_steps();
    let mut stream = server.begin("POST", CHAT, &endless(1));
    assert_eq!(stream.line().unwrap(), ": keep-alive");
    drop(gate);
    assert!(stream.event().is_some());
}
