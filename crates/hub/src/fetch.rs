//! The one way in for bytes, whatever their source: resumed, counted, hashed, and stored only when they are right.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::at;
use crate::partial::Partial;
use crate::source::{Failure, Source, Wanted, wait};
use crate::{Progress, Retry, Step};

/// A file without a known size ends here at the latest.
const MAX_UNKNOWN_SIZE: u64 = 64 << 20;

/// Fetches `wanted` to `path` and returns its SHA-256.
pub(crate) fn fetch(
    source: &dyn Source,
    wanted: &Wanted,
    path: &Path,
    retry: Retry,
    progress: &dyn Progress,
) -> Result<String, Failure> {
    let folder = path.parent().expect("a file has a folder");
    fs::create_dir_all(folder).map_err(at(folder))?;
    let mut partial = Partial::open(partial_path(path, wanted), wanted.size)?;
    receive_all(source, wanted, &mut partial, retry, progress)?;
    let sha256 = partial.sha256();
    partial.finish(path)?;
    progress.step(Step::Stored { file: &wanted.file });
    Ok(sha256)
}

/// Its name carries what is expected, so that what is taken up is a part of the same file.
fn partial_path(path: &Path, wanted: &Wanted) -> std::path::PathBuf {
    let expected = match (&wanted.sha256, wanted.size) {
        (Some(sha256), _) => sha256.chars().take(12).collect(),
        (None, size) => format!("{}", size.unwrap_or(0)),
    };
    let mut name = path.file_name().expect("the path names a file").to_owned();
    name.push(format!(".{expected}.partial"));
    path.with_file_name(name)
}

/// Until the file is whole and right, or there is no hope.
fn receive_all(
    source: &dyn Source,
    wanted: &Wanted,
    partial: &mut Partial,
    retry: Retry,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let (mut failed, first) = (0, partial.len());
    loop {
        let before = partial.len();
        let failure = match receive(source, wanted, partial, progress) {
            Ok(()) => match mismatch(partial, wanted) {
                None => return Ok(()),
                Some(reason) => Failure::Unusable(reason),
            },
            Err(failure) => failure,
        };
        match failure {
            Failure::Unreachable(reason) if partial.len() <= first => return Err(Failure::Source(reason)),
            Failure::Cut(reason) | Failure::Unreachable(reason) => {
                failed = if partial.len() > before { 1 } else { failed + 1 };
                if failed >= retry.attempts {
                    return Err(Failure::Source(reason));
                }
                wait(retry, failed, &reason, progress);
            }
            // Bytes that another process had left may be to blame; without them it is the source.
            Failure::Unusable(reason) if partial.was_resumed() => {
                progress.step(Step::Retrying { reason: &reason });
                partial.restart()?;
            }
            Failure::Unusable(reason) => {
                partial.discard();
                return Err(Failure::Source(reason));
            }
            failure => return Err(failure),
        }
    }
}

/// One connection's worth.
fn receive(
    source: &dyn Source,
    wanted: &Wanted,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    if partial.len() > 0 && wanted.size == Some(partial.len()) {
        match wanted.sha256 {
            Some(_) => return Ok(()),
            None => partial.restart()?,
        }
    }
    let stream = source.open(wanted, partial.len())?;
    if stream.offset != partial.len() {
        partial.restart()?;
    }
    let total = wanted.size.or(stream.total);
    if stream.total.is_some_and(|found| Some(found) != total) {
        return Err(Failure::Unusable(wrong_size(wanted, stream.total.unwrap_or(0), total.unwrap_or(0))));
    }
    progress.step(Step::Receiving { file: &wanted.file, source: &source.name(), done: partial.len(), total });
    let ends_early = copy(stream.bytes, wanted, total.unwrap_or(MAX_UNKNOWN_SIZE), partial, progress)?;
    match total {
        Some(total) if ends_early && stream.total.is_some() => {
            Err(Failure::Cut(format!("the connection ended after {} of {total} bytes", partial.len())))
        }
        Some(total) if ends_early => Err(Failure::Unusable(wrong_size(wanted, partial.len(), total))),
        _ => Ok(()),
    }
}

fn wrong_size(wanted: &Wanted, found: u64, expected: u64) -> String {
    format!("{} has {found} bytes there, but it must have {expected}", wanted.file)
}

/// Copies to the end of `bytes`. True where that is before `limit`.
fn copy(
    mut bytes: Box<dyn Read>,
    wanted: &Wanted,
    limit: u64,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<bool, Failure> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(partial.len() < limit),
            Ok(read) if partial.len() + read as u64 > limit => {
                return Err(Failure::Unusable(format!("{} is larger than the expected {limit} bytes", wanted.file)));
            }
            Ok(read) => {
                partial.write(&buffer[..read])?;
                progress.step(Step::Received { bytes: read as u64 });
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(Failure::Source(error.to_string())),
            Err(error) => return Err(Failure::Cut(format!("the connection was cut: {error}"))),
        }
    }
}

fn mismatch(partial: &Partial, wanted: &Wanted) -> Option<String> {
    let expected = wanted.sha256.as_ref()?;
    let found = partial.sha256();
    (found != *expected).then(|| format!("the SHA-256 of {} is {found}, but it must be {expected}", wanted.file))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::time::Duration;

    use super::*;
    use crate::partial::Disk;
    use crate::source::Stream;

    /// Takes eight bytes.
    struct SmallDisk(usize);

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 8 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(8 - self.0);
            self.0 += taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk for SmallDisk {
        fn truncate(&mut self) -> io::Result<()> {
            self.0 = 0;
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bytes(&'static [u8]);

    impl Source for Bytes {
        fn name(&self) -> String {
            "memory".to_owned()
        }

        fn open(&self, _: &Wanted, offset: u64) -> Result<Stream, Failure> {
            Ok(Stream { offset, total: None, bytes: Box::new(&self.0[offset as usize..]) })
        }
    }

    #[test]
    fn a_full_disk_is_named_and_given_back_what_was_taken() {
        let path = std::env::temp_dir().join(format!("tokenmill-full-{}", std::process::id()));
        fs::write(&path, "what was written so far").expect("a temporary file");
        let mut partial = Partial::on(Box::new(SmallDisk(0)), path.clone(), Some(10));
        let wanted = Wanted { file: "f".to_owned(), size: Some(10), sha256: None };
        let retry = Retry { attempts: 3, backoff: Duration::ZERO };
        let failure = receive_all(&Bytes(b"0123456789"), &wanted, &mut partial, retry, &()).expect_err("it is full");
        let Failure::Here(error) = failure else { panic!("no other source helps: {failure:?}") };
        assert!(error.to_string().starts_with("the disk is full"), "{error}");
        assert!(error.to_string().contains("TOKENMILL_CACHE"), "{error}");
        assert!(!path.exists(), "the temporary file is gone");
    }

    #[test]
    fn an_endless_stream_of_unknown_size_ends() {
        struct Endless;
        impl Source for Endless {
            fn name(&self) -> String {
                "endless".to_owned()
            }
            fn open(&self, _: &Wanted, offset: u64) -> Result<Stream, Failure> {
                Ok(Stream { offset, total: None, bytes: Box::new(io::repeat(0)) })
            }
        }
        struct Nothing;
        impl Write for Nothing {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Disk for Nothing {
            fn truncate(&mut self) -> io::Result<()> {
                Ok(())
            }
            fn sync(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut partial = Partial::on(Box::new(Nothing), "/nonexistent/partial".into(), None);
        let wanted = Wanted { file: "f".to_owned(), size: None, sha256: None };
        let retry = Retry { attempts: 3, backoff: Duration::ZERO };
        let failure = receive_all(&Endless, &wanted, &mut partial, retry, &()).expect_err("too large");
        assert!(matches!(failure, Failure::Source(reason) if reason.contains("larger")));
    }
}
