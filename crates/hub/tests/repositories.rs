//! Models that are not in the catalog: a repository on the hub.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Reply, Request, Server, TempDir, options, sha256};
use hub::{HubError, HubOptions, list, resolve};

const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A hub that has the files at `COMMIT`, whatever the repository and the branch.
fn hub(files: Vec<(&'static str, &'static str)>) -> Server {
    Server::start(move |request: &Request, _| {
        if request.path.starts_with("/api/models/") {
            let sibling = |(name, body): &(&str, &str)| {
                let lfs = match name.ends_with(".json") {
                    true => "null".to_owned(),
                    false => format!(r#"{{"sha256": "{}", "size": {}}}"#, sha256(body.as_bytes()), body.len()),
                };
                format!(r#"{{"rfilename": "{name}", "size": {}, "lfs": {lfs}}}"#, body.len())
            };
            let siblings = files.iter().map(sibling).collect::<Vec<_>>().join(",");
            return Reply::body(format!(r#"{{"id": "x", "sha": "{COMMIT}", "siblings": [{siblings}]}}"#));
        }
        let body = files.iter().find(|(name, _)| request.path.ends_with(&format!("/resolve/{COMMIT}/{name}")));
        body.map_or(Reply::status(404), |(_, body)| Reply::ranged(request, body.as_bytes()))
    })
}

#[test]
fn a_checkpoint_is_a_folder_with_what_serving_needs() {
    let files = vec![
        ("config.json", "{}"),
        ("README.md", "#"),
        ("model.safetensors", "weights"),
        ("tokenizer.json", "{ }"),
        ("../evil.json", "!"),
    ];
    let (temp, server) = (TempDir::new(), hub(files));
    let options = options(&temp.0, &server.url);
    let found = resolve(Some("owner/model"), &options, &()).unwrap();
    assert_eq!(
        (found.path.clone(), found.name.as_str()),
        (temp.0.join("models/owner--model").join(COMMIT), "owner/model")
    );
    let mut names: Vec<String> =
        fs::read_dir(&found.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".tokenmill.json", "config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(fs::read_to_string(found.path.join("model.safetensors")).unwrap(), "weights");

    let asked = server.requests().len();
    for offline in [false, true] {
        assert_eq!(resolve(Some("owner/model"), &HubOptions { offline, ..options.clone() }, &()).unwrap(), found);
    }
    assert_eq!(server.requests().len(), asked, "found without asking");
    resolve(Some("owner/model"), &HubOptions { refresh: true, ..options.clone() }, &()).unwrap();
    assert_eq!(server.requests().len(), asked + 1, "a refresh asks which commit it is, and that is here");
    assert_eq!(list(&options).unwrap()[0].name, "owner/model");
}

#[test]
fn one_gguf_file_of_many_is_named() {
    let (temp, server) =
        (TempDir::new(), hub(vec![("m.Q8_0.gguf", "eight"), ("m.Q5_0.gguf", "five"), ("m.Q6_K.gguf", "six")]));
    let options = options(&temp.0, &server.url);
    for (spec, file) in
        [("owner/m:Q5_0", "m.Q5_0.gguf"), ("owner/m@v1/x:m.Q6_K.gguf", "m.Q6_K.gguf"), ("owner/m", "m.Q8_0.gguf")]
    {
        let found = resolve(Some(spec), &options, &()).unwrap();
        assert_eq!(found.path.file_name().unwrap(), file);
        assert_eq!(resolve(Some(spec), &HubOptions { offline: true, ..options.clone() }, &()).unwrap(), found);
    }
    assert!(server.paths().contains(&"/api/models/owner/m/revision/v1%2Fx?blobs=true".to_owned()));
    let error = resolve(Some("owner/m:Q2_K"), &options, &()).unwrap_err().to_string();
    assert!(error.contains("m.Q8_0.gguf, m.Q5_0.gguf, m.Q6_K.gguf"), "{error}");
}

#[test]
fn answers_that_are_no_listing_are_refused() {
    for (body, reason) in [
        ("<html>", "not what a hub says"),
        (r#"{"sha": "../../x"}"#, "names no commit"),
        (r#"{"sha": "abc"}"#, "neither"),
    ] {
        let (temp, server) = (TempDir::new(), Server::start(move |_, _| Reply::body(body)));
        let error = resolve(Some("owner/m"), &options(&temp.0, &server.url), &()).unwrap_err();
        assert!(matches!(error, HubError::NoSource { .. }) && error.to_string().contains(reason), "{error}");
    }
    let (temp, server) = (TempDir::new(), Server::start(|_, _| Reply::status(502)));
    resolve(Some("owner/m"), &options(&temp.0, &server.url), &()).unwrap_err();
    assert_eq!(server.requests().len(), 3, "asked again");
}
