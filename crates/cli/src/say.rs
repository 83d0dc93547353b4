//! What commands print. A reader who has left, as `head` does, wants no more: the program ends as if it were done.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// A line.
pub fn say(line: impl Display) {
    print(format_args!("{line}\n"));
}

/// Just that, at once.
pub fn print(text: impl Display) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = write!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("tokenmill: cannot print: {error}");
        std::process::exit(1);
    }
}
