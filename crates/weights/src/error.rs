//! What can be wrong with a checkpoint: the file, and a sentence about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A problem with the file or folder at `path`.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub struct WeightsError {
    pub path: PathBuf,
    pub problem: Problem,
}

#[derive(Debug, Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is not what its name or place says, or contradicts itself.
    #[error("{0}")]
    Malformed(String),
    /// The file is well formed, and asks for something that is not there yet.
    #[error("{0}")]
    Unsupported(String),
    /// A setting of the model is missing or cannot be.
    #[error("{0}")]
    Config(String),
    #[error("tensor {name}: {reason}")]
    Tensor { name: String, reason: String },
    #[error("has no tensor {0}")]
    NoTensor(String),
}

impl Problem {
    pub(crate) fn malformed(sentence: impl Into<String>) -> Self {
        Self::Malformed(sentence.into())
    }

    pub(crate) fn tensor(name: &str, reason: impl ToString) -> Self {
        Self::Tensor { name: name.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn at(self, path: &Path) -> WeightsError {
        WeightsError { path: path.to_owned(), problem: self }
    }
}

/// Says which file a problem is about.
pub(crate) trait InFile<T> {
    fn in_file(self, path: &Path) -> Result<T, WeightsError>;
}

impl<T, E: Into<Problem>> InFile<T> for Result<T, E> {
    fn in_file(self, path: &Path) -> Result<T, WeightsError> {
        self.map_err(|problem| problem.into().at(path))
    }
}
