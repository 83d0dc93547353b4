//! The files of the repository that people write, in memory.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::source;

/// Folders that nobody writes.
const SKIPPED: &[&str] = &["target", ".git", "__pycache__", "node_modules", ".pytest_cache"];
/// Kinds of files that rules read.
const EXTENSIONS: &[&str] = &["rs", "toml", "md", "py", "sh", "txt", "cu", "cuh", "jinja"];
const NAMES: &[&str] = &["run"];

pub(super) struct Tree {
    pub files: Vec<File>,
}

/// A file by its path from the top, with `/` between folders.
pub(super) struct File {
    pub path: String,
    pub text: String,
    /// Rust only: the text with comments and the insides of strings blanked; the same lines.
    pub code: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { source::blank(text) } else { text.to_owned() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub fn is_manifest(&self) -> bool {
        self.path.ends_with("Cargo.toml")
    }

    /// Lines of code and the line numbers, counted from 1.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(idx, line)| (idx + 1, line))
    }

    /// Lines of the text and their numbers, counted from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(idx, line)| (idx + 1, line))
    }

    /// The line from which the file is tests; past the end where it has none.
    pub fn tests_from(&self) -> usize {
        if self.path.contains("/tests/") || self.path.starts_with("tests/") {
            return 1;
        }
        self.code_lines().find(|(_, line)| line.trim() == "#[cfg(test)]").map_or(usize::MAX, |(number, _)| number)
    }
}

impl Tree {
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { files: Vec::new() };
        tree.read_folder(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    self.read_folder(&entry.path(), &format!("{path}/"))?;
                }
            } else if is_written(&name) {
                let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
                self.files.push(File::new(&path, &text));
            }
        }
        Ok(())
    }

    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// Manifests of packages: all but the workspace's own.
    pub fn packages(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_manifest() && file.path != "Cargo.toml")
    }
}

fn is_written(name: &str) -> bool {
    NAMES.contains(&name) || name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

#[cfg(test)]
pub(super) fn made(files: &[(&str, &str)]) -> Tree {
    Tree { files: files.iter().map(|(path, text)| File::new(path, text)).collect() }
}
