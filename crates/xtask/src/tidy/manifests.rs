//! What the manifests and the map must say.

use toml::{Table, Value};

use super::Violation;
use super::tree::{File, Tree};

/// A list of dependencies in a manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Normal,
    Build,
    Dev,
}

impl Section {
    fn key(self) -> &'static str {
        match self {
            Self::Normal => "dependencies",
            Self::Build => "build-dependencies",
            Self::Dev => "dev-dependencies",
        }
    }
}

fn table(file: &File) -> Table {
    file.text.parse().unwrap_or_default()
}

pub(super) fn package_name(file: &File) -> Option<String> {
    Some(table(file).get("package")?.get("name")?.as_str()?.to_owned())
}

/// Names (of packages, where a dependency is renamed) and how they are declared.
pub(super) fn dependencies(file: &File, section: Section) -> Vec<(String, Value)> {
    let Some(Value::Table(listed)) = table(file).remove(section.key()) else { return Vec::new() };
    let real_name =
        |name: String, value: &Value| value.get("package").and_then(Value::as_str).map_or(name, str::to_owned);
    listed.into_iter().map(|(name, value)| (real_name(name, &value), value)).collect()
}

/// Dependencies with a version or a path of their own.
pub(super) fn own_versions(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in tree.packages() {
        for (name, value) in
            [Section::Normal, Section::Build, Section::Dev].into_iter().flat_map(|section| dependencies(file, section))
        {
            if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                violations.push(Violation::new(&file.path, 0, format!("{name} is not declared with workspace = true")));
            }
        }
    }
    violations
}

/// Lines of manifests that switch on a feature which links CUDA.
pub(super) fn cuda_features(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_manifest()) {
        let lines = file.lines().filter(|(_, line)| line.contains("candle") && line.contains("\"cud"));
        violations.extend(lines.map(|(number, line)| Violation::new(&file.path, number, line.trim())));
    }
    violations
}

/// Crates without a line in the map's table.
pub(super) fn off_the_map(tree: &Tree) -> Vec<Violation> {
    const MAP: &str = "crates/README.md";
    let map = tree.get(MAP).map_or("", |file| file.text.as_str());
    let folders = tree.packages().filter_map(|file| file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"));
    let names = folders.chain(["kernels", "models"]);
    let missing = names.filter(|name| !map.lines().any(|line| line.starts_with(&format!("| `{name}` |"))));
    missing.map(|name| Violation::new(MAP, 0, format!("no line for `{name}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::made;

    #[test]
    fn a_version_of_its_own_is_found() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nx = \"1\"\ny.workspace = true\n[dev-dependencies]\nz = { path = \"z\" }";
        let found: Vec<_> = own_versions(&made(&[("a/Cargo.toml", manifest)])).into_iter().map(|v| v.what).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("x is not") && found[1].starts_with("z is not"));
    }

    #[test]
    fn a_linked_cuda_is_found() {
        let manifest = "[workspace.dependencies]\ncandle-core = { version = \"0\", features = [\"cuda\"] }";
        assert_eq!(cuda_features(&made(&[("Cargo.toml", manifest)])).len(), 1);
        assert!(cuda_features(&made(&[("Cargo.toml", "candle-core = { version = \"0\" }")])).is_empty());
    }

    #[test]
    fn a_crate_off_the_map_is_found() {
        let map = "| `kernels` | x |\n| `models` | x |\n| `known` | x |";
        let tree = made(&[("crates/README.md", map), ("crates/known/Cargo.toml", ""), ("crates/new/Cargo.toml", "")]);
        assert_eq!(off_the_map(&tree), [Violation::new("crates/README.md", 0, "no line for `new`")]);
    }
}
