//! House rules as a table: each has a reason, and each has a test that it bites.
//!
//! A rule reads the [`Tree`] and returns what breaks it. Limits ratchet: the exceptions in `limits` may only shrink.

mod arrows;
mod kernels;
mod limits;
mod manifests;
mod source;
mod tree;
mod unsafety;
mod words;

use std::path::Path;

use anyhow::Result;

use crate::check::Counts;
use tree::Tree;

/// One house rule.
struct Rule {
    name: &'static str,
    reason: &'static str,
    find: fn(&Tree) -> Vec<Violation>,
}

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    path: String,
    /// Counts from 1; 0 where the whole file is meant.
    line: usize,
    what: String,
}

impl Violation {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

const RULES: &[Rule] = &[
    Rule {
        name: "arrows",
        reason: "dependencies between crates follow the drawing in crates/README.md and never turn",
        find: arrows::not_drawn,
    },
    Rule {
        name: "towers",
        reason: "the control plane has no tensor in its dependency tree, and the data plane no request",
        find: arrows::crossed_towers,
    },
    Rule {
        name: "map",
        reason: "crates/README.md is the map: it has a line for every crate",
        find: manifests::off_the_map,
    },
    Rule {
        name: "dependencies",
        reason: "versions and paths are declared once, in the workspace",
        find: manifests::own_versions,
    },
    Rule {
        name: "no-cuda-link",
        reason: "candle's cuda feature links CUDA, and the binary would not start without a driver",
        find: manifests::cuda_features,
    },
    Rule { name: "words", reason: "what a crate must not know it must not name", find: words::out_of_place },
    Rule {
        name: "hash-order",
        reason: "sched and engine repeat: nothing in them may depend on the order of a hash map",
        find: words::hash_iteration,
    },
    Rule {
        name: "unfinished",
        reason: "what is not done is not in the tree, and a test that is switched off is not a test",
        find: words::unfinished,
    },
    Rule {
        name: "hosts-and-paths",
        reason: "a machine's own paths and a registry's host names mean nothing elsewhere",
        find: words::machine_bound,
    },
    Rule {
        name: "sleep",
        reason: "a test that sleeps is slow or flaky; wait for the event instead",
        find: words::sleeping_tests,
    },
    Rule {
        name: "unsafe",
        reason: "unsafe lives in kernels and in the weight reader's mapping, and each use says why it is sound",
        find: unsafety::find,
    },
    Rule { name: "kernel-tests", reason: "every op has a test on every device that has it", find: kernels::untested },
    Rule {
        name: "headers",
        reason: "a file's first lines say what it is and what it refuses to know",
        find: limits::without_header,
    },
    Rule {
        name: "file-length",
        reason: "a file is one noun; the limit is 400 lines and the exceptions only shrink",
        find: limits::long_files,
    },
    Rule {
        name: "function-length",
        reason: "past 60 lines a function hides a second idea; the exceptions only shrink",
        find: limits::long_functions,
    },
];

/// Runs all rules and prints what breaks them.
pub fn run(root: &Path) -> Result<Counts> {
    let tree = Tree::read(root)?;
    let mut counts = Counts::default();
    for rule in RULES {
        let violations = (rule.find)(&tree);
        counts.add(violations.is_empty());
        print_result(rule, &violations);
    }
    Ok(counts)
}

fn print_result(rule: &Rule, violations: &[Violation]) {
    if violations.is_empty() {
        return println!("ok    {}", rule.name);
    }
    println!("FAIL  {}: {}", rule.name, rule.reason);
    for Violation { path, line, what } in violations {
        println!("      {path}:{line}: {what}");
    }
}
