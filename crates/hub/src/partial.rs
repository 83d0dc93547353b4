//! A file on its way: written under a temporary name, hashed as it grows, renamed when it is whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::HubError;
use crate::error::at;

/// What a partial file asks of the disk; tests put a full one in its place.
pub(crate) trait Disk: Write {
    fn truncate(&mut self) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn truncate(&mut self) -> io::Result<()> {
        self.set_len(0)?;
        self.seek(SeekFrom::Start(0)).map(|_| ())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

pub(crate) struct Partial {
    path: PathBuf,
    disk: Box<dyn Disk>,
    hasher: Sha256,
    len: u64,
    /// Bytes that an earlier process had written.
    resumed: u64,
    /// What the whole file will have, where it is known.
    size: Option<u64>,
}

impl Partial {
    /// Takes up what an earlier attempt left at `path`; more than `size` bytes cannot be right and are dropped.
    pub(crate) fn open(path: PathBuf, size: Option<u64>) -> Result<Self, HubError> {
        let options = File::options().create(true).truncate(false).read(true).write(true).to_owned();
        let mut file = options.open(&path).map_err(at(&path))?;
        let mut hasher = Sha256::new();
        let len = hash_into(&mut file, &mut hasher).map_err(at(&path))?;
        let mut partial = Self { path, disk: Box::new(file), hasher, len, resumed: len, size };
        if size.is_some_and(|size| len > size) {
            partial.restart()?;
        }
        Ok(partial)
    }

    #[cfg(test)]
    pub(crate) fn on(disk: Box<dyn Disk>, path: PathBuf, size: Option<u64>) -> Self {
        Self { path, disk, hasher: Sha256::new(), len: 0, resumed: 0, size }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn was_resumed(&self) -> bool {
        self.resumed > 0
    }

    pub(crate) fn restart(&mut self) -> Result<(), HubError> {
        self.disk.truncate().map_err(at(&self.path))?;
        self.hasher = Sha256::new();
        (self.len, self.resumed) = (0, 0);
        Ok(())
    }

    /// On a full disk the file is removed: what filled the disk should not go on doing so.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.disk.write_all(bytes).map_err(|error| self.disk_error(error))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn disk_error(&self, error: io::Error) -> HubError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                self.discard();
                HubError::DiskFull { path: self.path.clone(), needed: self.size.map(|size| size - self.len.min(size)) }
            }
            _ => at(&self.path)(error),
        }
    }

    /// The digest of everything written, in lowercase hexadecimal.
    pub(crate) fn sha256(&self) -> String {
        hex(self.hasher.clone())
    }

    pub(crate) fn discard(&self) {
        // Nothing depends on its absence: a file that cannot be removed is taken up or overwritten next time.
        let _ = fs::remove_file(&self.path);
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn finish(mut self, path: &Path) -> Result<(), HubError> {
        self.disk.sync().map_err(|error| self.disk_error(error))?;
        fs::rename(&self.path, path).map_err(at(path))?;
        sync_folder(path).map_err(at(path))
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The digest of a file, in lowercase hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    hash_into(&mut File::open(path)?, &mut hasher)?;
    Ok(hex(hasher))
}

fn hash_into(file: &mut File, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(len),
            read => {
                hasher.update(&buffer[..read]);
                len += read as u64;
            }
        }
    }
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
