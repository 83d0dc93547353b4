//! Server-sent events out of bytes that are cut anywhere; knows nothing of what they say.

/// Longest line that is kept; a longer one is no event of this API.
const MAX_LINE: usize = 16 << 20;

/// The bytes of a line that has not ended.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Calls `on_data` with what follows `data:` on each line that `bytes` complete. OpenAI's API puts each event on one
    /// line, so lines are not joined; comments and other fields are passed over.
    ///
    /// # Errors
    /// The first of `on_data`, or that a line grows without end.
    pub fn feed<E>(&mut self, bytes: &[u8], mut on_data: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E>
    where
        E: From<EndlessLine>,
    {
        self.open.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(len) = self.open[start..].iter().position(|&byte| byte == b'\n') {
            if let Some(data) = data(&self.open[start..start + len]) {
                on_data(data)?;
            }
            start += len + 1;
        }
        self.open.drain(..start);
        if self.open.len() > MAX_LINE { Err(EndlessLine.into()) } else { Ok(()) }
    }
}

/// A line that is longer than any event.
#[derive(Debug)]
pub(crate) struct EndlessLine;

fn data(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let value = line.strip_prefix(b"data:")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut lines, mut events) = (Lines::default(), Vec::new());
        for piece in pieces {
            let keep = |data: &[u8]| {
                events.push(String::from_utf8_lossy(data).into_owned());
                Ok::<(), EndlessLine>(())
            };
            lines.feed(piece, keep).unwrap();
        }
        events
    }

    #[test]
    fn events_survive_any_cut() {
        let stream = b": hello\n\ndata: one\n\nevent: x\r\ndata:two\r\n\r\ndata: [DONE]\n\ndata: never ended";
        for size in 1..=stream.len() {
            assert_eq!(fed(stream.chunks(size)), ["one", "two", "[DONE]"], "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let long = vec![b'x'; MAX_LINE];
        lines.feed(&long, |_| Ok::<(), EndlessLine>(())).unwrap();
        assert!(lines.feed(b"x", |_| Ok::<(), EndlessLine>(())).is_err());
    }
}
