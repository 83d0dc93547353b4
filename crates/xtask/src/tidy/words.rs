//! Words that must not stand in some places, and words that must stand nowhere.

use super::Violation;
use super::source::{find_word, is_word};
use super::tree::{File, Tree};

/// Words that code under `places` must not use, because of what the crate must not know.
struct Ban {
    /// Beginnings of paths.
    places: &'static [&'static str],
    words: &'static [&'static str],
    because: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        places: &["crates/sched/src/"],
        words: &["std::time", "Instant", "SystemTime", "Duration"],
        because: "the scheduler has no clock",
    },
    Ban { places: &["crates/sched/src/"], words: &["f32", "f64"], because: "the scheduler counts in whole numbers" },
    Ban {
        places: &["crates/sched/src/"],
        words: &["std::thread", "Mutex", "RwLock", "std::fs", "std::net", "std::env", "async"],
        because: "the scheduler is a pure state machine",
    },
    Ban {
        places: &[
            "crates/engine/src/",
            "crates/sched/src/",
            "crates/text/src/",
            "crates/runner/src/",
            "crates/sim/src/",
            "kernels/",
            "models/",
        ],
        words: &["axum", "hyper", "tower_http", "StatusCode", "OpenAi", "ChatCompletion"],
        because: "only the server names HTTP or OpenAI types",
    },
    Ban {
        places: &["crates/cli/src/", "crates/hub/src/"],
        words: &["axum", "tower_http", "ChatCompletion"],
        because: "only the server names HTTP frameworks or OpenAI types",
    },
    Ban {
        places: &["models/src/", "crates/nn/src/"],
        words: &[
            "Q4_0",
            "Q4_1",
            "Q5_0",
            "Q5_1",
            "Q8_0",
            "Q2K",
            "Q3K",
            "Q4K",
            "Q5K",
            "Q6K",
            "kernels",
            "Cpu",
            "Cuda",
            "Reference",
            "candle_core",
        ],
        because: "an architecture knows no quantization format and no concrete backend",
    },
    Ban {
        places: &["kernels/src/"],
        words: &["models", "engine", "GenerateRequest", "ModelConfig", "weights::"],
        because: "a kernel knows no model and no request",
    },
    Ban {
        places: &["crates/runner/src/", "crates/tensor/src/", "crates/sampler/src/", "crates/nn/src/", "models/src/"],
        words: &["GenerateRequest", "tokenizers", "SystemTime"],
        because: "below the seam nothing knows a request, a text or the time of day",
    },
];

impl Ban {
    fn covers(&self, path: &str) -> bool {
        self.places.iter().any(|place| path.starts_with(place))
    }
}

/// Words where their crate must not know them.
pub(super) fn out_of_place(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ban in BANS {
        for file in tree.rust().filter(|file| ban.covers(&file.path)) {
            let until = file.tests_from();
            for (number, line) in file.code_lines().take_while(|(number, _)| *number < until) {
                let words = ban.words.iter().filter(|word| find_word(line, word));
                violations
                    .extend(words.map(|word| Violation::new(&file.path, number, format!("{word}: {}", ban.because))));
            }
        }
    }
    violations
}

/// Iteration over hash maps where order must repeat. Goes by the names that are declared as maps in the same file.
pub(super) fn hash_iteration(tree: &Tree) -> Vec<Violation> {
    let places = ["crates/sched/src/", "crates/engine/src/"];
    let mut violations = Vec::new();
    for file in tree.rust().filter(|file| places.iter().any(|place| file.path.starts_with(place))) {
        let maps: Vec<&str> = file.code.lines().filter_map(declared_map).collect();
        for (number, line) in file.code_lines() {
            let iterated = maps.iter().filter(|map| iterates(line, map));
            violations.extend(iterated.map(|map| Violation::new(&file.path, number, format!("{map} is iterated"))));
        }
    }
    violations
}

/// The name that a line declares as a hash map or set.
fn declared_map(line: &str) -> Option<&str> {
    let at = ["HashMap<", "HashSet<", "HashMap::", "HashSet::"].iter().filter_map(|kind| line.find(kind)).min()?;
    let before = line[..at].trim_end_matches(|c: char| c != ':' && c != '=').trim_end_matches([':', '=', ' ']);
    let before = before.split(':').next().unwrap_or(before).trim_end();
    let start = before.rfind(|c| !is_word(c)).map_or(0, |idx| idx + 1);
    (start < before.len()).then(|| &before[start..])
}

fn iterates(line: &str, map: &str) -> bool {
    const WAYS: &[&str] = &[
        "iter()",
        "iter_mut()",
        "keys()",
        "values()",
        "values_mut()",
        "into_iter()",
        "into_values()",
        "into_keys()",
        "drain()",
        "retain(",
    ];
    WAYS.iter().any(|way| find_word(line, &format!("{map}.{way}")))
        || line.split_once(" in ").is_some_and(|(_, iterated)| {
            let iterated =
                iterated.trim_end_matches([' ', '{']).trim_start_matches(['&', ' ']).trim_start_matches("mut ");
            iterated == map || iterated == format!("self.{map}")
        })
}

/// Marks of work that is not done. Written in halves, so that this file does not break its own rule.
pub(super) fn unfinished(tree: &Tree) -> Vec<Violation> {
    let in_code = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    let in_text = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut violations = Vec::new();
    for file in &tree.files {
        let code = file.code_lines().filter(|_| file.is_rust()).flat_map(|line| in_code.map(|word| (line, word)));
        let text = file.lines().flat_map(|line| in_text.map(|word| (line, word)));
        let found = code.chain(text).filter(|((_, line), word)| find_word(line, word));
        violations.extend(found.map(|((number, _), word)| Violation::new(&file.path, number, word)));
    }
    violations
}

/// Paths of one machine, and hosts of package registries.
pub(super) fn machine_bound(tree: &Tree) -> Vec<Violation> {
    let words = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("npmjs", ".org"),
    ];
    let mut violations = Vec::new();
    for file in &tree.files {
        for (number, line) in file.lines() {
            let found = words.iter().filter(|word| line.contains(**word));
            violations.extend(found.map(|word| Violation::new(&file.path, number, *word)));
        }
    }
    violations
}

/// Test files in which something other than the test itself takes its time, such as a simulated device.
const PACED: &[&str] = &["crates/server/tests/http/server.rs"];

/// Tests that wait for time to pass.
pub(super) fn sleeping_tests(tree: &Tree) -> Vec<Violation> {
    let sleeps = |file: &File| -> Vec<Violation> {
        let tests = file.code_lines().skip_while(|(number, _)| *number < file.tests_from());
        let found = tests.filter(|(_, line)| find_word(line, "sleep"));
        found.map(|(number, line)| Violation::new(&file.path, number, line.trim())).collect()
    };
    tree.rust().filter(|file| !PACED.contains(&file.path.as_str())).flat_map(sleeps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::made;

    #[test]
    fn every_ban_bites() {
        for ban in BANS {
            for word in ban.words {
                let path = format!("{}x.rs", ban.places[0]);
                let code = format!("//! {word}\nuse {word};\n#[cfg(test)]\nuse {word};");
                let found = out_of_place(&made(&[(&path, &code)]));
                assert!(found.iter().any(|v| v.what.starts_with(word) && v.line == 2), "{word} in {path}");
                assert!(found.iter().all(|v| v.line == 2), "comments and tests may say {word}");
                assert!(out_of_place(&made(&[("crates/xtask/src/x.rs", &code)])).is_empty());
            }
        }
    }

    #[test]
    fn iterating_a_map_is_found() {
        let declared = "struct A { rows: HashMap<u32, u32>, list: Vec<u32> }\nlet seen = HashSet::new();\n";
        for (line, found) in [
            ("for (a, b) in &self.rows {", true),
            ("for (a, b) in rows {", true),
            ("self.rows.values().sum()", true),
            ("seen.drain()", true),
            ("self.rows.get(&1)", false),
            ("self.list.iter()", false),
            ("self.rows.len()", false),
        ] {
            let tree = made(&[("crates/sched/src/a.rs", &format!("{declared}{line}"))]);
            assert_eq!(!hash_iteration(&tree).is_empty(), found, "{line}");
        }
    }

    #[test]
    fn unfinished_work_is_found() {
        let comment = format!("// {}: later", concat!("TO", "DO"));
        for text in ["todo!()", "unimplemented!(\"x\")", "#[ignore = \"slow\"]", &comment] {
            assert_eq!(unfinished(&made(&[("a.rs", text)])).len(), 1, "{text}");
        }
        assert!(unfinished(&made(&[("a.rs", "let s = \"todo!\"; // ignore")])).is_empty());
    }

    #[test]
    fn machines_and_hosts_are_found() {
        for text in [concat!("/ho", "me/me/x"), concat!("https://pypi", ".org/simple")] {
            assert_eq!(machine_bound(&made(&[("README.md", text)])).len(), 1, "{text}");
        }
    }

    #[test]
    fn only_tests_must_not_sleep() {
        let code = "fn wait() { thread::sleep(x) }\n";
        assert!(sleeping_tests(&made(&[("crates/a/src/a.rs", code)])).is_empty());
        assert_eq!(sleeping_tests(&made(&[("crates/a/tests/a.rs", code)])).len(), 1);
        let inner = format!("{code}#[cfg(test)]\nmod tests {{ sleep(1) }}");
        assert_eq!(sleeping_tests(&made(&[("crates/a/src/a.rs", &inner)])).len(), 1);
    }
}
