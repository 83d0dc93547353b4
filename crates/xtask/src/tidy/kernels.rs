//! Every kernel has a test: in its own file, or by its name in the tests of the kernels.

use super::Violation;
use super::source::functions;
use super::tree::{File, Tree};

const PLACE: &str = "kernels/src/";
/// The lanes that kernels are written over: every kernel's test runs on each of them.
const LANES: &str = "/simd/";

pub(super) fn untested(tree: &Tree) -> Vec<Violation> {
    let is_test = |file: &&File| file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    let tests: Vec<&File> = tree.rust().filter(is_test).collect();
    let tested = |file: &File| {
        let stem = file.path.trim_end_matches("/mod.rs").trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
        file.code.contains("#[test]") || tests.iter().any(|test| test.text.contains(stem))
    };
    let is_kernel = |file: &&File| {
        let placed = file.path.starts_with(PLACE) && !file.path.contains(LANES);
        placed && !is_test(file) && !functions(&file.code).is_empty()
    };
    let untested = tree.rust().filter(is_kernel).filter(|file| !tested(file));
    untested.map(|file| Violation::new(&file.path, 0, "no test of its own or by its name")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::made;

    #[test]
    fn a_kernel_without_a_test_is_found() {
        let code = "fn norm() {}\n";
        let own = format!("{code}#[test]\nfn works() {{}}");
        for (files, found) in [
            (vec![("kernels/src/cpu/norm.rs", code)], 1),
            (vec![("kernels/src/cpu/norm.rs", own.as_str())], 0),
            (vec![("kernels/src/cpu/norm.rs", code), ("kernels/tests/ops.rs", "//! norm and others")], 0),
            (vec![("kernels/src/cpu/norm.rs", code), ("kernels/tests/ops.rs", "//! matmul")], 1),
            (vec![("kernels/src/cpu/simd/avx2.rs", code)], 0),
            (vec![("kernels/src/lib.rs", "mod norm;")], 0),
        ] {
            assert_eq!(untested(&made(&files)).len(), found, "{files:?}");
        }
    }
}
