//! How long files and functions may be. The exceptions name their length today: they may shrink, never grow.

use super::Violation;
use super::source::functions;
use super::tree::{File, Tree};

const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 60;

/// Files that are longer, and how long they are.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions that are longer, as `file::function`, and how long they are.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

pub(super) fn without_header(tree: &Tree) -> Vec<Violation> {
    let bare = tree.rust().filter(|file| !file.text.starts_with("//!"));
    bare.map(|file| Violation::new(&file.path, 1, "does not begin with a //! line that says what it is")).collect()
}

pub(super) fn long_files(tree: &Tree) -> Vec<Violation> {
    let lengths = tree.rust().map(|file| (file.path.clone(), file.path.clone(), 0, file.text.lines().count()));
    over(lengths.collect(), MAX_FILE_LINES, LONG_FILES)
}

/// Functions outside of tests, whose tables may be as long as they like.
pub(super) fn long_functions(tree: &Tree) -> Vec<Violation> {
    let of = |file: &File| {
        let (path, until) = (file.path.clone(), file.tests_from());
        let found = functions(&file.code).into_iter().filter(move |function| function.line < until);
        found.map(move |f| (format!("{path}::{}", f.name), path.clone(), f.line, f.len)).collect::<Vec<_>>()
    };
    over(tree.rust().flat_map(of).collect(), MAX_FUNCTION_LINES, LONG_FUNCTIONS)
}

/// What is over its limit, and exceptions that are no longer needed at their length. Items: name, path, line, length.
fn over(items: Vec<(String, String, usize, usize)>, limit: usize, exceptions: &[(&str, usize)]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, path, line, len) in &items {
        let exception = exceptions.iter().find(|(excepted, _)| excepted == name).map(|(_, len)| *len);
        let allowed = exception.unwrap_or(limit);
        if *len > allowed {
            violations.push(Violation::new(path, *line, format!("{name} has {len} lines; {allowed} are allowed")));
        } else if exception.is_some_and(|excepted| *len < excepted) {
            let sentence = format!("{name} is down to {len} lines: lower or drop its exception");
            violations.push(Violation::new(path, *line, sentence));
        }
    }
    let gone = exceptions.iter().filter(|(excepted, _)| !items.iter().any(|(name, ..)| name == excepted));
    violations.extend(gone.map(|(excepted, _)| Violation::new(excepted, 0, "is gone: drop its exception")));
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::made;

    #[test]
    fn a_bare_file_is_found() {
        assert_eq!(without_header(&made(&[("a.rs", "fn main() {}"), ("b.rs", "//! B.\n"), ("c.py", "")])).len(), 1);
    }

    #[test]
    fn length_is_found_past_the_limit() {
        for (lines, found) in [(0, 0), (1, 0), (400, 0), (401, 1)] {
            assert_eq!(long_files(&made(&[("a.rs", &"x\n".repeat(lines))])).len(), found, "{lines} lines");
        }
        for (lines, found) in [(0, 0), (58, 0), (59, 1)] {
            let code = format!("fn f() {{\n{}}}\n", "x;\n".repeat(lines));
            assert_eq!(long_functions(&made(&[("src/a.rs", &code)])).len(), found, "{lines} lines of body");
            assert!(long_functions(&made(&[("tests/a.rs", &code)])).is_empty());
        }
    }

    #[test]
    fn exceptions_only_shrink() {
        let item = |len| vec![("a.rs".to_owned(), "a.rs".to_owned(), 0, len)];
        for (len, found) in [(500, 0), (501, 1), (499, 1), (10, 1)] {
            assert_eq!(over(item(len), 400, &[("a.rs", 500)]).len(), found, "{len} lines");
        }
        assert_eq!(over(vec![], 400, &[("a.rs", 500)]).len(), 1);
    }
}
