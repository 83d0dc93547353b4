//! What the program says, and how it ends, where it cannot do what was asked.

use std::net::TcpListener;
use std::process::{Command, Output};

fn tokenmill(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenmill"));
    command.args(args).env_clear().output().expect("the program starts")
}

/// A folder with a model of a few kilobytes.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tiny/llama");

/// That `args` end with `code` and one line, which says `message`.
fn check(args: &[&str], code: i32, message: &str) {
    let output = tokenmill(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?} said {said}");
    assert!(said.contains(message), "{args:?} said {said}");
    assert!(code == 2 || said.trim_end().lines().count() == 1, "more than one line: {said}");
    assert!(output.stdout.is_empty(), "answers go to stdout, refusals to stderr");
}

#[test]
fn a_missing_model_file() {
    check(&["serve", "/nowhere/model.gguf"], 1, "tokenmill: there is no file or folder /nowhere/model.gguf");
}

#[test]
fn a_folder_without_a_model() {
    let folder = std::env::temp_dir().join(format!("tokenmill-empty-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    check(&["plan", &folder.to_string_lossy()], 1, "has neither model.safetensors nor");
    std::fs::remove_dir_all(&folder).expect("the test's own folder");
}

#[test]
fn a_file_cut_short() {
    let path = std::env::temp_dir().join(format!("tokenmill-cut-{}.gguf", std::process::id()));
    std::fs::write(&path, b"GGUF\x03\0\0\0\x01\0\0\0").expect("a file for the test");
    check(&["plan", &path.to_string_lossy()], 1, &path.to_string_lossy());
    std::fs::remove_file(&path).expect("the test's own file");
}

#[test]
fn a_port_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let output = tokenmill(&["serve", TINY, "--port", &port, "--kv-cache-memory", "16MiB"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("127.0.0.1:{port} is in use by another program; choose another with --port");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&message), "{said}");
}

#[test]
fn the_world_without_keys() {
    let args = ["serve", TINY, "--host", "0.0.0.0", "--port", "0"];
    let output = tokenmill(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--api-key") && said.contains("--no-auth"), "{said}");
}

#[test]
fn a_cache_that_does_not_fit() {
    let args = ["plan", TINY, "--kv-cache-memory", "1KiB"];
    check(&args, 1, "--kv-cache-memory");
}

#[test]
fn a_reader_who_has_left() {
    for args in [
        &["plan", TINY, "--kv-cache-memory", "16MiB"][..],
        &["doctor"],
        &["bench", "throughput", TINY, "--num-prompts", "1"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenmill"));
        let output = command.args(args).env_clear().stdout(writer).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panicked"), "{args:?}: {} {said}", output.status);
    }
}

#[test]
fn words_that_no_option_takes() {
    check(&["plan", TINY, "--activations", "int4"], 2, "activations are int8 or int16, not \"int4\"");
    check(&["plan", TINY, "--isa", "mmx"], 2, "mmx");
    check(&["plan", TINY, "--block-size", "0"], 2, "--block-size");
    check(&["serve", TINY, "--prot", "1"], 2, "--port");
}
