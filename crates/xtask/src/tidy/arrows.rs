//! The drawing of crates/README.md as a table, and who can reach whom along it.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::manifests::{Section, dependencies, package_name};
use super::tree::Tree;

/// What a crate may depend on among our own.
struct Arrows {
    from: &'static str,
    to: &'static [&'static str],
}

/// A crate that composes or tests others may depend on any of them.
const ANY: &[&str] = &["*"];

/// Two arrows are less than obvious: `tensor` and `kernels` point at `sampler`, as a backend samples on its own device and
/// takes the sampler's rows; and `nn` points at `weights`, as a layer loads itself.
const DRAWING: &[Arrows] = &[
    Arrows { from: "contract", to: &[] },
    Arrows { from: "sched", to: &["contract"] },
    Arrows { from: "text", to: &["contract"] },
    Arrows { from: "engine", to: &["contract", "sched", "text"] },
    Arrows { from: "server", to: &["contract", "engine", "text"] },
    Arrows { from: "hub", to: &[] },
    Arrows { from: "loadgen", to: &[] },
    Arrows { from: "quant", to: &[] },
    Arrows { from: "weights", to: &["quant"] },
    Arrows { from: "sampler", to: &["contract"] },
    Arrows { from: "tensor", to: &["quant", "sampler"] },
    Arrows { from: "nn", to: &["quant", "tensor", "weights"] },
    Arrows { from: "models", to: &["nn", "tensor", "weights"] },
    Arrows { from: "kernels", to: &["quant", "sampler", "tensor"] },
    Arrows { from: "runner", to: &["contract", "models", "sampler", "tensor", "weights"] },
    Arrows { from: "sim", to: &["contract", "engine", "sched", "text"] },
    Arrows { from: "testkit", to: &[] },
    Arrows { from: "fatbin", to: &[] },
    Arrows { from: "xtask", to: &["fatbin"] },
    Arrows { from: "tokenmill", to: ANY },
    Arrows { from: "tests", to: ANY },
    Arrows { from: "benches", to: ANY },
];

/// Build scripts may also use these.
const BUILD_ONLY: &[&str] = &["fatbin"];

/// Tests may also use these, wherever they are, and whatever their crate reaches.
const TEST_ONLY: &[&str] = &["sim", "testkit"];

/// What is written over `Backend` needs some backend to test it on.
const ON_A_BACKEND: &[&str] = &["models", "nn", "runner"];

/// Who must never reach whom, over any number of arrows.
const APART: &[(&str, &[&str])] = &[
    ("sched", &["text", "engine", "tensor", "sampler"]),
    ("engine", &["tensor", "quant", "weights", "kernels", "models", "runner", "sampler"]),
    ("server", &["tensor", "quant", "weights", "kernels", "models", "runner", "sampler"]),
    ("runner", &["engine", "server", "sched", "text"]),
    ("kernels", &["engine", "server", "sched", "text", "models", "runner"]),
    ("models", &["kernels", "engine"]),
    ("tokenmill", &["sim", "testkit", "xtask"]),
];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Our own crates, and which of them each depends on outside its tests.
fn graph(tree: &Tree, section: Section) -> Graph {
    let names: BTreeSet<String> = tree.packages().filter_map(package_name).collect();
    let of = |file| dependencies(file, section).into_iter().map(|(name, _)| name).filter(|name| names.contains(name));
    tree.packages().filter_map(|file| Some((package_name(file)?, of(file).collect()))).collect()
}

/// Arrows that are not in the drawing, and crates that are not.
pub(super) fn not_drawn(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    let normal = graph(tree, Section::Normal);
    for (section, extra) in [(Section::Normal, &[][..]), (Section::Build, BUILD_ONLY), (Section::Dev, TEST_ONLY)] {
        for (from, targets) in graph(tree, section) {
            let below = if section == Section::Dev { reachable(&normal, &from) } else { BTreeSet::new() };
            let Some(arrows) = DRAWING.iter().find(|arrows| arrows.from == from) else {
                violations.push(Violation::new("crates/xtask/src/tidy/arrows.rs", 0, format!("{from} is not drawn")));
                continue;
            };
            let drawn = |to: &String| {
                let listed = |list: &[&str]| list.contains(&to.as_str());
                let backend = section == Section::Dev && to == "kernels" && ON_A_BACKEND.contains(&from.as_str());
                arrows.to == ANY || listed(arrows.to) || listed(extra) || below.contains(to) || backend
            };
            let undrawn = targets.iter().filter(|to| !drawn(to));
            violations.extend(
                undrawn.map(|to| Violation::new(&manifest(tree, &from), 0, format!("{from} -> {to} is not drawn"))),
            );
        }
    }
    violations
}

/// Crates that reach, over whatever way, one that they must not.
pub(super) fn crossed_towers(tree: &Tree) -> Vec<Violation> {
    let graph = graph(tree, Section::Normal);
    let mut violations = Vec::new();
    for (from, forbidden) in APART {
        let reached = reachable(&graph, from);
        let crossed = forbidden.iter().filter(|to| reached.contains(**to));
        violations.extend(crossed.map(|to| Violation::new(&manifest(tree, from), 0, format!("{from} reaches {to}"))));
    }
    violations
}

fn reachable(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(next) = open.pop() {
        let new =
            graph.get(&next).into_iter().flatten().filter(|to| !reached.contains(*to)).cloned().collect::<Vec<_>>();
        reached.extend(new.iter().cloned());
        open.extend(new);
    }
    reached
}

fn manifest(tree: &Tree, package: &str) -> String {
    let file = tree.packages().find(|file| package_name(file).as_deref() == Some(package));
    file.map_or_else(|| package.to_owned(), |file| file.path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::made;

    #[test]
    fn an_arrow_upwards_is_found() {
        let package = |name: &str, deps: &str| format!("[package]\nname = \"{name}\"\n[dependencies]\n{deps}");
        let sched = package("sched", "contract.workspace = true\nengine.workspace = true\nserde.workspace = true");
        let engine =
            package("engine", "sched = { workspace = true }\nruntime = { package = \"tensor\", path = \"x\" }");
        let (contract, tensor, stray) = (package("contract", ""), package("tensor", ""), package("stray", ""));
        let tree = made(&[
            ("crates/sched/Cargo.toml", &sched),
            ("crates/engine/Cargo.toml", &engine),
            ("crates/contract/Cargo.toml", &contract),
            ("crates/tensor/Cargo.toml", &tensor),
            ("crates/stray/Cargo.toml", &stray),
        ]);
        let said = |violations: Vec<Violation>| violations.into_iter().map(|v| v.what).collect::<BTreeSet<_>>();
        let undrawn = said(not_drawn(&tree));
        assert!(undrawn.contains("sched -> engine is not drawn") && undrawn.contains("engine -> tensor is not drawn"));
        assert!(undrawn.contains("stray is not drawn") && undrawn.len() == 3, "{undrawn:?}");
        let crossed = said(crossed_towers(&tree));
        assert!(crossed.contains("engine reaches tensor") && crossed.contains("sched reaches tensor"), "{crossed:?}");
    }

    #[test]
    fn tests_may_use_the_kit() {
        let quant =
            "[package]\nname = \"quant\"\n[dev-dependencies]\ntestkit.workspace = true\nengine.workspace = true";
        let others = ["testkit", "engine"].map(|name| format!("[package]\nname = \"{name}\""));
        let tree = made(&[("quant/Cargo.toml", quant), ("a/Cargo.toml", &others[0]), ("b/Cargo.toml", &others[1])]);
        let violations = not_drawn(&tree);
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].what, "quant -> engine is not drawn");
    }
}
