//! Stop strings across chunk borders. Knows text only; who ends the sequence is the caller's business.
//!
//! One Knuth-Morris-Pratt automaton per stop string reads the text byte by byte. The stop whose last byte comes first
//! wins, and among those that end together the longest, so that the result does not depend on how the text was cut into
//! chunks. The longest beginning that any automaton is in the middle of is held back; everything before it is safe to show.

/// Watches one text for stop strings.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<Matcher>,
    include: bool,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Empty stop strings are ignored. With `include` the stop string that matched is part of the output.
    pub fn new(stops: &[String], include: bool) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).map(|stop| Matcher::new(stop)).collect();
        Self { stops, include, held: String::new(), stopped: false }
    }

    /// Appends to `out` what can be shown after `text`, and returns the stop string that `text` completed, if any.
    /// After a match nothing is shown any more.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<String> {
        if self.stopped {
            return None;
        }
        if self.stops.is_empty() {
            out.push_str(text);
            return None;
        }
        for (idx, byte) in text.bytes().enumerate() {
            if let Some(stop) = self.advance(byte) {
                self.held.push_str(&text[..=idx]);
                self.end(&stop, out);
                return Some(stop);
            }
        }
        self.held.push_str(text);
        self.release(out);
        None
    }

    /// The text has ended: what was held back is no stop string.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    fn advance(&mut self, byte: u8) -> Option<String> {
        let mut longest: Option<&str> = None;
        for matcher in &mut self.stops {
            if matcher.advance(byte) && longest.is_none_or(|stop| stop.len() < matcher.stop.len()) {
                longest = Some(&matcher.stop);
            }
        }
        longest.map(str::to_owned)
    }

    fn end(&mut self, stop: &str, out: &mut String) {
        let end = if self.include { self.held.len() } else { self.held.len() - stop.len() };
        out.push_str(&self.held[..end]);
        self.held.clear();
        self.stopped = true;
    }

    fn release(&mut self, out: &mut String) {
        let possible = self.stops.iter().map(|matcher| matcher.matched).max().unwrap_or(0);
        let safe = self.held.len() - possible;
        out.push_str(&self.held[..safe]);
        self.held.drain(..safe);
    }
}

/// Finds one stop string in a stream of bytes.
#[derive(Clone, Debug)]
struct Matcher {
    stop: String,
    /// `fallback[n]`: length of the longest proper border of the stop's first `n` bytes.
    fallback: Vec<usize>,
    /// Length of the longest beginning of the stop that the text ends with.
    matched: usize,
}

impl Matcher {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut border = 0;
        for end in 1..bytes.len() {
            while border > 0 && bytes[end] != bytes[border] {
                border = fallback[border];
            }
            border += usize::from(bytes[end] == bytes[border]);
            fallback[end + 1] = border;
        }
        Self { stop: stop.to_owned(), fallback, matched: 0 }
    }

    /// True when `byte` completes the stop string.
    fn advance(&mut self, byte: u8) -> bool {
        let bytes = self.stop.as_bytes();
        while self.matched > 0 && bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(bytes[self.matched] == byte);
        self.matched == bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[&str], stops: &[&str], include: bool) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut watcher = StopStrings::new(&stops, include);
        let mut out = String::new();
        let mut matched = None;
        for chunk in chunks {
            matched = matched.or(watcher.push(chunk, &mut out));
        }
        watcher.finish(&mut out);
        (out, matched)
    }

    /// The earliest end wins, then the longest stop.
    fn naive(text: &str, stops: &[&str], include: bool) -> (String, Option<String>) {
        for end in 0..=text.len() {
            let ending =
                stops.iter().filter(|stop| !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some(stop) = ending.max_by_key(|stop| stop.len()) {
                let end = if include { end } else { end - stop.len() };
                return (text[..end].to_owned(), Some(stop.to_string()));
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn every_chunking_agrees_with_the_naive_search() {
        let alphabet = ["a", "b", "é", "日"];
        let stop_sets: [&[&str]; 7] = [
            &[],
            &[""],
            &["ab"],
            &["aab", "ab"],
            &["aba", "b日"],
            &["é", "éa", "aéa"],
            &["aaaa", "abab", "日日", "bb"],
        ];
        let mut seed = 1u64;
        for _ in 0..150 {
            let mut text = String::new();
            for _ in 0..9 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push_str(alphabet[(seed >> 60) as usize % alphabet.len()]);
            }
            let chars: Vec<String> = text.chars().map(String::from).collect();
            for stops in stop_sets {
                for cuts in 0..1u32 << (chars.len() - 1) {
                    let chunks = cut(&chars, cuts);
                    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
                    let include = cuts % 2 == 0;
                    assert_eq!(run(&chunks, stops, include), naive(&text, stops, include), "{chunks:?} {stops:?}");
                }
            }
        }
    }

    /// Joins the characters, cutting after character `i` where bit `i` is set.
    fn cut(chars: &[String], cuts: u32) -> Vec<String> {
        let mut chunks = vec![String::new()];
        for (idx, char) in chars.iter().enumerate() {
            chunks.last_mut().expect("there is one").push_str(char);
            if cuts >> idx & 1 == 1 {
                chunks.push(String::new());
            }
        }
        chunks
    }

    #[test]
    fn a_possible_beginning_is_held_back_and_no_more() {
        let mut watcher = StopStrings::new(&["END".to_owned(), "END OF".to_owned()], false);
        let mut out = String::new();
        for (chunk, shown) in
            [("the E", "the "), ("N", "the "), ("T", "the ENT"), ("EE", "the ENTE"), ("x", "the ENTEEx")]
        {
            assert_eq!(watcher.push(chunk, &mut out), None);
            assert_eq!(out, shown, "after {chunk:?}");
        }
        assert_eq!(watcher.push("END OF", &mut out), Some("END".to_owned()), "the one that ends first");
        assert_eq!(watcher.push("more", &mut out), None);
        watcher.finish(&mut out);
        assert_eq!(out, "the ENTEEx");
    }
}
