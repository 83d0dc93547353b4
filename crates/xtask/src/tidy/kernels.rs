//! Every op is tested on every device: each method of `Backend` that a device implements is called in its tests.

use super::Violation;
use super::source::{find_word, functions};
use super::tree::{File, Tree};

const TRAIT: &str = "crates/tensor/src/backend.rs";
/// Devices' folders, and what tests that run on several call them.
const DEVICES: [(&str, &str); 2] = [("cpu", "Cpu"), ("cuda", "Cuda")];
const SHARED_TESTS: &str = "kernels/tests/";
/// The table of ops, for devices whose own tests run its rows.
const TABLE: &str = "kernels/src/ops/";

pub(super) fn untested(tree: &Tree) -> Vec<Violation> {
    let Some(file) = tree.get(TRAIT) else { return Vec::new() };
    let methods = methods(file);
    let missing = |(folder, name): (&str, &str)| {
        let place = format!("kernels/src/{folder}/mod.rs");
        let implemented: Vec<String> = tree
            .get(&place)
            .map(|file| functions(&file.code))
            .unwrap_or_default()
            .into_iter()
            .map(|f| f.name)
            .collect();
        let tests = tests(tree, folder, name);
        let untested = methods.iter().filter(|method| implemented.contains(method) && !is_called(&tests, method));
        let violation = |method| Violation::new(&place, 0, format!("no test on this device calls Backend::{method}"));
        untested.map(violation).collect::<Vec<_>>()
    };
    DEVICES.into_iter().flat_map(missing).collect()
}

fn methods(file: &File) -> Vec<String> {
    let lines = file.code.lines().skip_while(|line| !line.starts_with("pub trait Backend"));
    let lines = lines.take_while(|line| *line != "}");
    lines.filter_map(|line| Some(line.trim().strip_prefix("fn ")?.split(['(', '<']).next()?.to_owned())).collect()
}

/// The code of a device's own tests, of the table where they run it, and of tests in which it is one of several.
fn tests<'a>(tree: &'a Tree, folder: &str, name: &str) -> Vec<&'a str> {
    let place = format!("kernels/src/{folder}/tests/");
    let own = || tree.rust().filter(|file| file.path.starts_with(&place)).map(|file| file.code.as_str());
    let shared = tree.rust().filter(|file| match file.path.starts_with(TABLE) {
        true => own().any(|code| find_word(code, "ops::")),
        false => file.path.starts_with(SHARED_TESTS) && find_word(&file.code, name),
    });
    own().chain(shared.map(|file| file.code.as_str())).collect()
}

fn is_called(tests: &[&str], method: &str) -> bool {
    let calls = [format!(".{method}("), format!("::{method}(")];
    tests.iter().any(|code| calls.iter().any(|call| find_word(code, call)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::made;

    #[test]
    fn an_op_without_a_test_is_found() {
        let backend = "pub trait Backend {\n    fn norm(&mut self);\n    fn attend<T>(&mut self);\n}\nfn other() {}\n";
        let device = "impl Backend for It {\n    fn norm(&mut self) {}\n}\n";
        let test = |path: &'static str, text: &'static str| (path, text);
        for (tests, found) in [
            (vec![], vec!["cpu", "cuda"]),
            (vec![test("kernels/src/cpu/tests/a.rs", "b.norm(1)")], vec!["cuda"]),
            (vec![test("kernels/src/cpu/tests/a.rs", "// b.norm(1)\n\"b.norm(1)\"")], vec!["cpu", "cuda"]),
            (vec![test("kernels/src/cpu/tests/a.rs", "b.norms(1); b.norm_of(1); norm(1)")], vec!["cpu", "cuda"]),
            (vec![test("kernels/tests/both.rs", "use Cuda; B::norm(b)")], vec!["cpu"]),
            (vec![test("kernels/src/ops/norms.rs", "b.norm(1)")], vec!["cpu", "cuda"]),
            (
                vec![test("kernels/src/ops/norms.rs", "b.norm(1)"), test("kernels/src/cpu/tests/a.rs", "ops::rows()")],
                vec!["cuda"],
            ),
            (vec![test("kernels/tests/both.rs", "use Cuda; use Cpu; b.norm(1)")], vec![]),
        ] {
            let devices = [("kernels/src/cpu/mod.rs", device), ("kernels/src/cuda/mod.rs", device)];
            let files = [&[(TRAIT, backend)][..], &devices, &tests].concat();
            let violations = untested(&made(&files));
            let places: Vec<String> = violations.iter().map(|violation| violation.path.clone()).collect();
            let expected: Vec<String> = found.iter().map(|folder| format!("kernels/src/{folder}/mod.rs")).collect();
            assert_eq!(places, expected, "{tests:?}");
        }
    }
}
