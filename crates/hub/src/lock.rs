//! One process fetches a model at a time; others wait and then find it.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use crate::error::at;
use crate::{HubError, Progress, Step};

/// Held until it is dropped. The operating system gives it back when a process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn acquire(path: &Path, progress: &dyn Progress) -> Result<Self, HubError> {
        let folder = path.parent().expect("a lock has a folder");
        fs::create_dir_all(folder).map_err(at(folder))?;
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(at(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.step(Step::Waiting);
                file.lock().map_err(at(path))?;
            }
            // A file system without locks: two fetches may do the work twice, and each still renames a whole file.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(at(path)(error)),
        }
        Ok(Self { _file: file })
    }
}
