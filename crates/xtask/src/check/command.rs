//! Runs another program: its output is shown as it comes, and kept.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};

use super::Context;

/// What a program said and how it ended.
pub(super) struct Output {
    pub status: ExitStatus,
    /// Standard output and standard error, as they came.
    pub text: String,
}

impl Context {
    /// A command in the repository's top folder.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env_remove("CARGO_MANIFEST_DIR").stdin(Stdio::null());
        command
    }

    pub(super) fn cargo(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.command(cargo);
        command.args(arguments);
        command
    }
}

/// Runs to the end.
pub(super) fn run(command: &mut Command) -> Result<Output> {
    let name = describe(command);
    println!("$ {name}");
    let (reader, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn().with_context(|| format!("cannot start {name}"));
    // The command's own ends of the pipe are closed, or the reader would wait for them.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child?;
    let text = show_and_keep(reader);
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    Ok(Output { status, text })
}

fn show_and_keep(stream: impl Read) -> String {
    let mut text = String::new();
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
