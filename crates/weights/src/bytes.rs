//! Reads little-endian numbers and strings off a byte slice, and never past its end.

use crate::Problem;

/// A position in a file's bytes.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        assert!(at <= bytes.len(), "a reader starts within its bytes");
        Self { bytes, at }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes; `what` names them in the error.
    pub fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], Problem> {
        let left = self.left();
        let len = usize::try_from(len).ok().filter(|len| *len <= left).ok_or_else(|| {
            Problem::malformed(format!(
                "is truncated: {what} takes {len} bytes at byte {}, and {left} are left",
                self.at
            ))
        })?;
        let bytes = &self.bytes[self.at..][..len];
        self.at += len;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Problem> {
        Ok(self.take(N as u64, what)?.try_into().expect("take returns the length it is asked for"))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, Problem> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things of which each takes at least `min_bytes`, so that the file could hold them.
    pub fn count(&mut self, min_bytes: usize, what: &str) -> Result<usize, Problem> {
        let count = self.u64(what)?;
        let fit = self.left() / min_bytes;
        usize::try_from(count).ok().filter(|count| *count <= fit).ok_or_else(|| {
            Problem::malformed(format!("{what} is {count}, but the rest of the file has room for {fit} at most"))
        })
    }

    /// A string with its length before it.
    pub fn string(&mut self, what: &str) -> Result<&'a str, Problem> {
        let len = self.u64(what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| Problem::malformed(format!("{what} is not UTF-8")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_past_the_end() {
        let bytes = [3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c'];
        assert_eq!(Reader::new(&bytes, 0).string("a name").expect("three bytes"), "abc");
        for (len, message) in [
            (0, "a name takes 8 bytes at byte 0, and 0 are left"),
            (7, "a name takes 8 bytes at byte 0, and 7 are left"),
            (10, "a name takes 3 bytes at byte 8, and 2 are left"),
        ] {
            let error = Reader::new(&bytes[..len], 0).string("a name").expect_err(message).to_string();
            assert!(error.contains(message), "{error}");
        }
        let error = Reader::new(&[255; 8], 0).count(4, "the number of tensors").expect_err("too many").to_string();
        assert!(error.contains("room for 0 at most"), "{error}");
    }
}
