//! What one compilation of the whole workspace made. Every part runs these programs and compiles nothing itself: with fewer packages
//! selected, their dependencies would have other features, and all of them would be built once more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// All programs, by package.
pub(crate) struct Built {
    programs: Vec<Program>,
}

/// One program that was linked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    pub package: String,
    /// The library, binary or test file that it is made of.
    pub target: String,
    /// A test harness, and not the program itself.
    is_tests: bool,
    pub path: PathBuf,
    /// The package's folder, where its tests expect to run.
    folder: PathBuf,
}

impl Built {
    /// Compiles what is not compiled yet of the whole workspace.
    ///
    /// # Errors
    /// If something does not compile.
    pub fn of(root: &Path) -> Result<Self> {
        Self::by(root, &["build", "--quiet", "--workspace", "--lib", "--bins", "--tests"], &[])
    }

    /// Runs cargo with `arguments` and `variables`, and keeps what it names.
    pub fn by(root: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).arg("--message-format=json-render-diagnostics");
        command.current_dir(root).envs(variables.iter().copied());
        println!("$ cargo {}", arguments.join(" "));
        let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        ensure!(output.status.success(), "it does not compile");
        Ok(Self { programs: String::from_utf8_lossy(&output.stdout).lines().filter_map(program).collect() })
    }

    /// The program itself of package `package`.
    pub fn binary(&self, package: &str) -> Result<&Program> {
        let found = self.programs.iter().find(|program| program.package == package && !program.is_tests);
        found.with_context(|| format!("cargo named no program of {package}"))
    }

    /// The tests inside of `package`'s library.
    pub fn library_tests(&self, package: &str) -> Result<&Program> {
        let found = self.tests().find(|program| program.package == package && program.target == package);
        found.with_context(|| format!("cargo named no tests of {package}"))
    }

    /// All test harnesses, in an order that repeats.
    pub fn tests(&self) -> impl Iterator<Item = &Program> {
        let tests = self.programs.iter().filter(|program| program.is_tests);
        let in_order: BTreeMap<_, _> =
            tests.map(|program| ((&program.package, &program.target, &program.path), program)).collect();
        in_order.into_values()
    }
}

impl Program {
    /// A command as cargo would run it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }
}

/// The program that a line of cargo's messages tells of.
fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let package = message["package_id"].as_str()?.rsplit(['/', '#', '@']).find(|part| !starts_with_digit(part))?;
    Some(Program {
        package: package.to_owned(),
        target: text(&message["target"]["name"])?,
        is_tests: message["profile"]["test"].as_bool()?,
        path: PathBuf::from(message["executable"].as_str()?),
        folder: manifest.parent()?.to_owned(),
    })
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_off_cargos_messages() {
        let message = |id: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/a/crates/cli/Cargo.toml",
                "target":{{"name":"x"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        for (id, package) in
            [("path+file:///a/crates/cli#tokenmill@0.1.0", "tokenmill"), ("path+file:///a/kernels#0.1.0", "kernels")]
        {
            let read = program(&message(id, true, r#""/a/target/debug/deps/x-1""#)).expect("a program");
            assert_eq!((read.package.as_str(), read.is_tests), (package, true));
            assert_eq!((read.target.as_str(), read.folder.as_path()), ("x", Path::new("/a/crates/cli")));
        }
        assert_eq!(program(&message("path+file:///a/kernels#0.1.0", false, "null")), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
