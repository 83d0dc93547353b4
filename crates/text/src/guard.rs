//! Keeps user text from becoming control tokens.
//!
//! A chat template joins its own markers with what users wrote, so afterwards `<|im_end|>` in a message looks like the
//! template's. The guard therefore breaks every control token's text in the users' strings with an invisible mark before
//! the template runs; when the tokenizer reads the rendered prompt it finds the unbroken markers, and only then are the
//! marks taken out. Only strings that contain such a text are touched, so templates that trim, split or compare behave
//! as ever. A beginning of a control token at the end of a string is broken too, as the next string could complete it.
//!
//! The marks are Unicode noncharacters. One in user text is escaped, so every text comes through unchanged.
//! Only control ("special") tokens are guarded: other added tokens, such as `<think>`, are vocabulary like any other.

use std::borrow::Cow;
use std::collections::HashSet;

use aho_corasick::{AhoCorasick, MatchKind};

/// Begins each mark.
const ESCAPE: char = '\u{fdd0}';
/// A break within a control token's text.
const BREAK: &str = "\u{fdd0}\u{fdd1}";
/// An escape character that the user wrote.
const LITERAL: &str = "\u{fdd0}\u{fdd2}";

/// Is it one of the characters that marks are made of?
pub(crate) fn is_mark(char: char) -> bool {
    ('\u{fdd0}'..='\u{fdd2}').contains(&char)
}

/// Knows the texts of a tokenizer's control tokens.
#[derive(Debug, Default)]
pub struct Guard {
    controls: Option<AhoCorasick>,
    /// Proper beginnings of control tokens that do not begin like a word: those could be any text's last letters.
    beginnings: HashSet<Box<str>>,
    longest_beginning: usize,
}

impl Guard {
    /// A control token of one character cannot be broken and is not guarded.
    pub fn new<'a>(controls: impl IntoIterator<Item = &'a str>) -> Self {
        let controls: Vec<&str> = controls.into_iter().filter(|text| text.chars().nth(1).is_some()).collect();
        let mut guard = Self::default();
        for text in controls.iter().filter(|text| !text.starts_with(char::is_alphanumeric)) {
            for (end, _) in text.char_indices().skip(1) {
                guard.beginnings.insert(text[..end].into());
                guard.longest_beginning = guard.longest_beginning.max(end);
            }
        }
        // Building fails only beyond the size limits of the automaton, which megabytes of control tokens would take.
        guard.controls = AhoCorasick::builder().match_kind(MatchKind::Standard).build(controls).ok();
        guard
    }

    /// `text` with marks in it; borrowed where none were needed.
    pub(crate) fn protect<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut marks: Vec<(usize, &str)> = self.breaks(text).into_iter().map(|at| (at, BREAK)).collect();
        marks.extend(text.match_indices(ESCAPE).map(|(at, _)| (at, LITERAL)));
        if marks.is_empty() {
            return Cow::Borrowed(text);
        }
        marks.sort_unstable();
        let mut marked = String::with_capacity(text.len() + marks.len() * BREAK.len());
        let mut done = 0;
        for (at, mark) in marks {
            marked.push_str(&text[done..at]);
            marked.push_str(mark);
            done = if mark == LITERAL { at + ESCAPE.len_utf8() } else { at };
        }
        marked.push_str(&text[done..]);
        Cow::Owned(marked)
    }

    /// Where to break: after the first character of each control token's text, and after a beginning of one at the end.
    fn breaks(&self, text: &str) -> Vec<usize> {
        let Some(controls) = &self.controls else { return Vec::new() };
        let after_first = |start: usize| start + text[start..].chars().next().map_or(0, char::len_utf8);
        let mut breaks: Vec<usize> =
            controls.find_overlapping_iter(text).map(|found| after_first(found.start())).collect();
        if self.ends_with_beginning(text) {
            breaks.push(text.len());
        }
        breaks.sort_unstable();
        breaks.dedup();
        breaks
    }

    fn ends_with_beginning(&self, text: &str) -> bool {
        let earliest = text.len().saturating_sub(self.longest_beginning);
        (earliest..text.len()).any(|start| text.get(start..).is_some_and(|end| self.beginnings.contains(end)))
    }
}

/// `text` as the user wrote it.
pub(crate) fn reveal(text: &str) -> Cow<'_, str> {
    if text.contains(ESCAPE) {
        Cow::Owned(text.replace(BREAK, "").replace(LITERAL, "\u{fdd0}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The same within a tokenizer's pipeline, after it has looked for control tokens.
pub(crate) fn reveal_normalized(text: &mut tokenizers::NormalizedString) -> tokenizers::Result<()> {
    if text.get().contains(ESCAPE) {
        text.replace(BREAK, "")?;
        text.replace(LITERAL, "\u{fdd0}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_text_has_no_control_token_and_reveals_itself() {
        let controls = ["<|im_end|>", "<a>", ">b<", "<|", "</s>", "user1", "x"];
        let guard = Guard::new(controls);
        let texts = [
            "",
            "x",
            "plain",
            "<|im_end|>",
            "a <|im_end|> b<|im_end|>",
            "<a>b<a>",
            "<|",
            "<",
            "</s",
            "ends in user",
            "user1",
            "\u{fdd0}",
            "\u{fdd0}\u{fdd1}",
            "<\u{fdd0}\u{fdd1}a>",
            "\u{fdd0}\u{fdd0}\u{fdd2}<a>",
            "日<a>本",
        ];
        for text in texts {
            let marked = guard.protect(text);
            for control in controls.iter().filter(|control| control.len() > 1) {
                assert!(!marked.contains(control), "{control} in {marked:?}");
                assert!(
                    text.starts_with("user")
                        || !format!("{marked}{control}").replacen(control, "", 1).contains(control)
                );
            }
            assert_eq!(reveal(&marked), text);
        }
    }

    #[test]
    fn only_texts_with_a_control_token_are_touched() {
        let guard = Guard::new(["<|im_end|>", "[INST]", "madeup"]);
        for (text, untouched) in [
            ("hello", true),
            ("system", true),
            ("a < b", true),
            ("a <", false),
            ("[", false),
            ("m", true),
            ("madeup", false),
        ] {
            assert_eq!(matches!(guard.protect(text), Cow::Borrowed(_)), untouched, "{text}");
        }
        assert!(matches!(Guard::default().protect("<|im_end|>"), Cow::Borrowed(_)));
    }

    #[test]
    fn two_strings_cannot_join_into_a_control_token() {
        let guard = Guard::new(["<|im_end|>"]);
        let text = "<|im_end|>";
        for cut in 1..text.len() {
            let joined = format!("{}{}", guard.protect(&text[..cut]), guard.protect(&text[cut..]));
            assert!(!joined.contains(text), "cut at {cut}");
            assert_eq!(reveal(&joined), text);
        }
    }
}
