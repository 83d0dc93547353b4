//! Just enough of Rust's grammar to look at code without its comments and strings, and to find functions.

/// What the reader is in the middle of.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    LineComment,
    BlockComment { depth: u32 },
    String,
    RawString { hashes: usize },
}

/// The text with everything in comments and in string and character literals blanked, line for line.
pub(super) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < chars.len() {
        let (kept, len, next) = step(inside, &chars, at);
        for c in &chars[at..(at + len).min(chars.len())] {
            code.push(if *c == '\n' || kept { *c } else { ' ' });
        }
        at += len;
        inside = next;
    }
    code
}

/// Whether the next characters are code, how many they are, and what follows them.
fn step(inside: Inside, chars: &[char], at: usize) -> (bool, usize, Inside) {
    let starts = |pattern: &str| pattern.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    match inside {
        Inside::Code => step_code(chars, at),
        Inside::LineComment if chars[at] == '\n' => (true, 1, Inside::Code),
        Inside::BlockComment { depth } if starts("/*") => (false, 2, Inside::BlockComment { depth: depth + 1 }),
        Inside::BlockComment { depth: 1 } if starts("*/") => (false, 2, Inside::Code),
        Inside::BlockComment { depth } if starts("*/") => (false, 2, Inside::BlockComment { depth: depth - 1 }),
        Inside::String if chars[at] == '\\' => (false, 2, Inside::String),
        Inside::String if chars[at] == '"' => (true, 1, Inside::Code),
        Inside::RawString { hashes } if starts(&format!("\"{}", "#".repeat(hashes))) => {
            (true, 1 + hashes, Inside::Code)
        }
        _ => (false, 1, inside),
    }
}

fn step_code(chars: &[char], at: usize) -> (bool, usize, Inside) {
    let peek = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
    let in_word = at > 0 && is_word(chars[at - 1]);
    match (peek(0), peek(1)) {
        ('/', '/') => (false, 2, Inside::LineComment),
        ('/', '*') => (false, 2, Inside::BlockComment { depth: 1 }),
        ('"', _) => (true, 1, Inside::String),
        ('r', '"' | '#') if !in_word || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            match peek(1 + hashes) {
                '"' => (true, 2 + hashes, Inside::RawString { hashes }),
                _ => (true, 1, Inside::Code),
            }
        }
        ('\'', '\\') => {
            let len = chars[at + 3..].iter().take_while(|c| **c != '\'').count();
            (false, len + 4, Inside::Code)
        }
        ('\'', _) if peek(2) == '\'' => (false, 3, Inside::Code),
        _ => (true, 1, Inside::Code),
    }
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte offsets at which `word` stands alone in `line`. An end of `word` that is no letter needs no border there.
pub(super) fn find_word(line: &str, word: &str) -> bool {
    let borders = |c: Option<char>, end: Option<char>| !(c.is_some_and(is_word) && end.is_some_and(is_word));
    line.match_indices(word).any(|(start, _)| {
        borders(line[..start].chars().next_back(), word.chars().next())
            && borders(line[start + word.len()..].chars().next(), word.chars().next_back())
    })
}

/// A function's name, its first line counted from 1, and how many lines it takes.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    pub name: String,
    pub line: usize,
    pub len: usize,
}

/// All functions with a body in blanked code.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let lines: Vec<&str> = code.lines().collect();
    let starts = lines.iter().enumerate().filter_map(|(idx, line)| Some((idx, function_name(line)?)));
    starts
        .filter_map(|(idx, name)| {
            Some(Function { name: name.to_owned(), line: idx + 1, len: body_len(&lines[idx..])? })
        })
        .collect()
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    if before.chars().next_back().is_some_and(is_word) {
        return None;
    }
    let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
    (end > 0).then(|| &after[..end])
}

/// Lines up to the brace that closes the first one; `None` for a declaration.
fn body_len(lines: &[&str]) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (idx, line) in lines.iter().enumerate() {
        for c in line.chars() {
            match c {
                '{' => braces += 1,
                '}' => braces -= 1,
                '[' | '(' => brackets += 1,
                ']' | ')' => brackets -= 1,
                ';' if braces == 0 && brackets == 0 => return None,
                _ => {}
            }
            if c == '}' && braces == 0 {
                return Some(idx + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_go_and_lines_stay() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x\"y", z)"#, r#"f("    ", z)"#),
            ("r#\"a\"b\"# c", "r#\"   \"# c"),
            ("'a' 'b '\\'' c", "    'b      c"),
            ("&'a str", "&'a str"),
            ("\"a\nb\" c", "\" \n \" c"),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn words_stand_alone() {
        for (line, word, found) in [
            ("use axum::Router;", "axum", true),
            ("let taxum = 1;", "axum", false),
            ("unsafe_code", "unsafe", false),
            ("a.iter()", ".iter()", true),
            ("todo!()", "todo!", true),
        ] {
            assert_eq!(find_word(line, word), found, "{word} in {line}");
        }
    }

    #[test]
    fn functions_have_lengths() {
        let code = "fn a() {\n  if x {\n  }\n}\nfn b();\nimpl X { fn c(x: [u8; 2]) -> u8 { 1 } }\n";
        let found: Vec<_> = functions(code).into_iter().map(|f| (f.name, f.line, f.len)).collect();
        assert_eq!(found, [("a".to_owned(), 1, 4), ("c".to_owned(), 6, 1)]);
    }
}
