//! Where `unsafe` may stand, and that it explains itself.

use super::Violation;
use super::source::find_word;
use super::tree::{File, Tree};

const PLACES: &[&str] = &["kernels/", "crates/weights/"];
/// How far above its `unsafe` a reason may stand.
const REACH: usize = 8;
/// One reason for a whole file of intrinsics.
const FOR_ALL: &str = "SAFETY (of every block below)";

pub(super) fn find(tree: &Tree) -> Vec<Violation> {
    tree.rust().flat_map(find_in).collect()
}

fn find_in(file: &File) -> Vec<Violation> {
    let allowed = PLACES.iter().any(|place| file.path.starts_with(place));
    let lines: Vec<&str> = file.text.lines().collect();
    let covered_from = lines.iter().position(|line| line.contains(FOR_ALL)).unwrap_or(usize::MAX);
    let explained = |number: usize| {
        let above = &lines[number.saturating_sub(REACH + 1)..number];
        number > covered_from || above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
    };
    let uses = file.code_lines().filter(|(_, line)| find_word(line, "unsafe"));
    uses.filter_map(|(number, line)| {
        // An `unsafe fn` is a contract, not a use; clippy asks the public ones for theirs.
        let contract = find_word(line, "unsafe fn") && line.matches("unsafe").count() == 1;
        match (allowed, contract || explained(number)) {
            (false, _) => Some(Violation::new(&file.path, number, "unsafe outside kernels and weights")),
            (true, false) => Some(Violation::new(&file.path, number, "unsafe without a SAFETY comment")),
            (true, true) => None,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::made;

    #[test]
    fn unsafe_is_found_unless_it_explains_itself() {
        let bare = "let x = unsafe { y };";
        let explained = "// SAFETY: y lives.\nlet x = unsafe { y };";
        for (path, code, found) in [
            ("crates/engine/src/a.rs", explained, true),
            ("kernels/src/a.rs", bare, true),
            ("kernels/src/a.rs", explained, false),
            ("crates/weights/src/a.rs", explained, false),
            ("kernels/src/a.rs", "unsafe fn f() {}", false),
            ("kernels/src/a.rs", "unsafe fn f() { unsafe { y } }", true),
            ("crates/engine/src/a.rs", "unsafe fn f() {}", true),
            ("kernels/src/a.rs", "// SAFETY (of every block below): ...\n\n\n\n\n\n\n\n\n\nunsafe { y };", false),
            ("crates/engine/src/a.rs", "#![allow(unsafe_code)] // unsafe", false),
        ] {
            assert_eq!(!find(&made(&[(path, code)])).is_empty(), found, "{code} in {path}");
        }
    }
}
