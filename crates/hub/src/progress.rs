//! How a fetch tells what it is doing. Drawing it is the caller's business.

/// Receives the steps of a fetch, in order, on the thread that fetches.
pub trait Progress {
    fn step(&self, step: Step<'_>);
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Another process fetches the same model; this one waits for it.
    Waiting,
    /// A source is asked.
    Trying { source: &'a str },
    /// Bytes of a file begin to arrive. `done` bytes are here already, from an attempt that was cut.
    Receiving { file: &'a str, source: &'a str, done: u64, total: Option<u64> },
    /// This many more bytes have arrived.
    Received { bytes: u64 },
    /// The connection was cut or refused for the moment; another attempt follows.
    Retrying { reason: &'a str },
    /// A file that is here is read again to check its digest.
    Verifying { file: &'a str },
    /// The file is whole, right, and in its place.
    Stored { file: &'a str },
    /// The source cannot help; the next one follows.
    Failed { source: &'a str, reason: &'a str },
}

/// Says nothing.
impl Progress for () {
    fn step(&self, _: Step<'_>) {}
}
