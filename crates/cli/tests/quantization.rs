//! `--quantization`: what it saves, that its model answers, and where it is refused.

use std::process::{Command, Output};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tiny/llama");
const QUANTIZED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/quant/W4A16");

fn tokenmill(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenmill"));
    let on_cpu = ["--device", "cpu", "--threads", "1", "--kv-cache-memory", "1MiB"];
    command.args(args).args(on_cpu).env_clear().envs(env.iter().copied()).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// MiB of weights that `plan` prints.
fn weights(args: &[&str], env: &[(&str, &str)]) -> f64 {
    let output = tokenmill(&[&["plan"], args].concat(), env);
    assert!(output.status.success(), "{args:?} said {}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("weights")).expect("the plan has weights");
    line.trim().trim_end_matches(" MiB").parse().expect("a number of MiB")
}

#[test]
fn the_plan_shows_what_int4_saves() {
    let plain = weights(&[TINY], &[]);
    let asked = weights(&[TINY, "--quantization", "int4"], &[]);
    assert!(asked < plain, "{asked} MiB against {plain}");
    assert!(weights(&[TINY], &[("TOKENMILL_QUANTIZATION", "int4")]) == asked, "the environment asks for the same");
}

#[test]
fn a_quantized_model_answers() {
    for scheme in ["fp8", "int4"] {
        let args = ["run", TINY, "--quantization", scheme, "--prompt", "Hello", "--max-tokens", "2"];
        let output = tokenmill(&args, &[]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{scheme} said {}", said(&output));
    }
    let output = tokenmill(&["run", QUANTIZED, "--prompt", "Hello", "--max-tokens", "2"], &[]);
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", said(&output));
}

#[test]
fn what_is_quantized_already_or_unknown_is_refused() {
    for (args, code, message) in [
        (["serve", QUANTIZED, "--quantization", "fp8"], 1, "quantized already; load it without --quantization fp8"),
        (["serve", TINY, "--quantization", "int3"], 2, "weights are quantized to fp8 or int4, not \"int3\""),
    ] {
        let output = tokenmill(&args, &[]);
        assert_eq!(output.status.code(), Some(code), "{args:?} said {}", said(&output));
        assert!(said(&output).contains(message), "{args:?} said {}", said(&output));
    }
}
