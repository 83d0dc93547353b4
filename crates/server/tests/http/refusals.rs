//! What the server does not take: each with its status, code and parameter, and without harm to anybody else.

use serde_json::{Value, json};

use crate::client::{self, head};
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";

/// A case's body: its fields over a request that would be fine.
fn body(case: &Value, path: &str) -> Vec<u8> {
    if let Some(raw) = case["raw"].as_str() {
        return raw.into();
    }
    let fine = if path == CHAT {
        json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
    } else {
        json!({"prompt": "hi", "max_tokens": 4})
    };
    let mut body = if case["bare"] == true { json!({}) } else { fine };
    if case["body"].get("max_completion_tokens").is_some() {
        body.as_object_mut().unwrap().remove("max_tokens");
    }
    body.as_object_mut().unwrap().extend(case["body"].as_object().unwrap().clone());
    body.to_string().into()
}

#[test]
fn each_bad_request_names_its_mistake() {
    let server = Server::start();
    let cases: Vec<Value> = serde_json::from_str(include_str!("bad_requests.json")).unwrap();
    for case in &cases {
        let path = case["path"].as_str().unwrap_or(CHAT);
        let reply = server.send("POST", path, &[("content-type", "application/json")], &body(case, path));
        let name = &case["name"];
        assert_eq!(reply.status, case["status"].as_u64().unwrap() as u16, "{name}: {}", reply.text());
        let error = reply.error();
        assert_eq!((&error["code"], &error["param"]), (&case["code"], &case["param"]), "{name}: {error}");
        assert_eq!(error["type"], "invalid_request_error", "{name}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(case["message"].as_str().unwrap()), "{name}: {message}");
    }
    assert_eq!(server.post(CHAT, &json!({"messages": [{"role": "user", "content": "hi"}]})).status, 200);
}

#[test]
fn deep_and_wide_bodies_are_refused() {
    let server = Server::start();
    let nested = |depth: usize| format!("{{\"messages\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    let wide: String = (0..600).map(|number| format!("\"field{number}\": 0,")).collect();
    for (name, body) in [
        ("just too deep", nested(128)),
        ("absurdly deep", nested(1_000_000)),
        ("deep in a field of no meaning", nested(200).replace("messages", "whatever")),
        ("wide", format!("{{{wide}\"messages\": []}}")),
    ] {
        let reply = server.send("POST", CHAT, &[], body.as_bytes());
        assert_eq!((reply.status, &reply.error()["code"]), (400, &json!("invalid_json")), "{name}");
    }
    let deepest = server.send("POST", CHAT, &[], nested(127).as_bytes());
    assert_eq!(deepest.error()["code"], "invalid_type", "127 levels in an object are read");
    let quoted = json!({"messages": [{"role": "user", "content": "[{\"\\".repeat(200)}], "max_tokens": 1});
    assert_eq!(server.post(CHAT, &quoted).status, 200, "brackets in a string do not nest");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let server = Server::start();
    let reply = server.send("POST", CHAT, &[], b"{\"messages\": \"\xff\xfe\"}");
    assert_eq!((reply.status, &reply.error()["code"]), (400, &json!("invalid_json")));
    let surrogate = server.send("POST", CHAT, &[], br#"{"messages": [{"role": "user", "content": "\ud800"}]}"#);
    assert_eq!((surrogate.status, &surrogate.error()["param"]), (400, &json!("messages[0].content")));
}

#[test]
fn unknown_paths_and_methods_say_so() {
    let server = Server::start();
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "unknown_url"),
        ("POST", "/v1/embeddings", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_supported"),
        ("DELETE", "/v1/models", 405, "method_not_supported"),
    ] {
        let reply = server.send(method, path, &[], b"");
        assert_eq!((reply.status, &reply.error()["code"]), (status, &json!(code)), "{method} {path}");
        if status == 405 {
            let allowed = if path.ends_with("models") { "GET,HEAD" } else { "POST" };
            assert_eq!(reply.headers["allow"], allowed, "{method} {path}");
        }
    }
}

#[test]
fn only_json_is_read() {
    let server = Server::start();
    let body = br#"{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}"#;
    for (content_type, status) in [
        (Some("application/json"), 200),
        (Some("application/json; charset=utf-8"), 200),
        (Some("Application/JSON"), 200),
        (Some("application/vnd.api+json"), 200),
        (None, 200),
        (Some("text/plain"), 415),
        (Some("multipart/form-data; boundary=x"), 415),
    ] {
        let headers: Vec<_> = content_type.iter().map(|value| ("content-type", *value)).collect();
        assert_eq!(server.send("POST", CHAT, &headers, body).status, status, "{content_type:?}");
    }
}

#[test]
fn a_large_body_is_refused_by_its_length_and_by_its_bytes() {
    let server = Server::with(|setup| {
        setup.config.max_body_bytes = 1000;
        setup.config.timeouts.read_body = std::time::Duration::from_millis(200);
    });
    let announced = head("POST", CHAT, &[("content-length", "1001")]);
    let reply = client::send(server.addr, announced.as_bytes()).finish();
    assert_eq!((reply.status, &reply.error()["code"]), (413, &json!("request_too_large")));
    let chunked = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\n";
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", " ".repeat(1001));
    assert_eq!(client::send(server.addr, format!("{chunked}{chunk}").as_bytes()).status, 413);
}

#[test]
fn a_body_that_does_not_come_times_out() {
    let server = Server::with(|setup| setup.config.timeouts.read_body = std::time::Duration::from_millis(20));
    let slow = head("POST", CHAT, &[("content-length", "100")]) + "{\"mess";
    let reply = client::send(server.addr, slow.as_bytes()).finish();
    assert_eq!((reply.status, &reply.error()["code"]), (408, &json!("request_timeout")));
}

#[test]
fn a_huge_head_is_refused() {
    let server = Server::start();
    for (name, headers) in [
        ("one long header", format!("x-long: {}\r\n", "a".repeat(70_000))),
        ("many headers", "x-many: 1\r\n".repeat(200)),
    ] {
        let bytes = format!("GET /health HTTP/1.0\r\n{headers}\r\n");
        assert_eq!(client::send(server.addr, bytes.as_bytes()).status, 431, "{name}");
    }
}

#[test]
fn a_prompt_beyond_the_context_is_refused() {
    let server = Server::start();
    for (words, name) in [(5_000, "by its tokens"), (1_000_000, "by its bytes")] {
        let messages = json!([{"role": "user", "content": "word ".repeat(words)}]);
        let error = server.post(CHAT, &json!({"messages": messages})).error();
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("context_length_exceeded"), &json!("messages")),
            "{name}"
        );
        let error = server.post("/v1/completions", &json!({"prompt": "word ".repeat(words)})).error();
        assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("prompt")), "{name}");
    }
}

#[test]
fn unknown_fields_are_counted_or_refused() {
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "wibble": 1, "user": "me"});
    let lenient = Server::start();
    assert_eq!(lenient.post(CHAT, &body).status, 200);
    assert_eq!(lenient.metric("tokenmill:unknown_parameters_total"), 1.0);
    let strict = Server::with(|setup| setup.config.strict_params = true);
    let reply = strict.post(CHAT, &body);
    assert_eq!((reply.status, &reply.error()["param"]), (400, &json!("wibble")));
    assert_eq!(reply.error()["code"], "unknown_parameter");
}

#[test]
fn what_is_not_http_ends_its_own_connection_only() {
    let server = Server::start();
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
        assert_eq!(client::send(server.addr, &[garbage, b"\r\n\r\n"].concat()).status, 400);
    }
    assert_eq!(server.send("GET", "/livez", &[], b"").status, 200);
}
