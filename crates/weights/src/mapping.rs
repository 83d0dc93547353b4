//! A file mapped into memory, read-only: the one place here that is unsafe.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file. An empty file has none.
pub(crate) struct Mapping {
    map: Option<Mmap>,
}

impl Mapping {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        if metadata.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is private and read-only, and this process never writes to a model file: `hub` renames
        // complete files into place. If another process truncates the file while it is mapped, reads of the lost pages
        // raise SIGBUS; that is the operator's to avoid, and no request can cause it.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }

    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Gives the resident pages back to the system. The bytes stay readable: they would come from the file again.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: dropping pages of a read-only mapping of a file loses nothing; the next read faults them in again
            // with the same contents. A failure changes nothing and is not worth a word.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_their_release() {
        let mapping = Mapping::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).expect("this crate");
        let before = mapping.bytes().to_vec();
        mapping.release();
        assert_eq!(mapping.bytes(), before);
    }

    #[test]
    fn a_folder_is_not_mapped() {
        assert!(Mapping::open(Path::new(env!("CARGO_MANIFEST_DIR"))).is_err());
    }
}
