//! Models on this machine.
//!
//! ```text
//! <cache>/models/<owner>--<name>/refs/<branch>            the commit that a branch or tag meant when it was fetched
//! <cache>/models/<owner>--<name>/<commit>/<file>          the model's files
//! <cache>/models/<owner>--<name>/<commit>/.tokenmill.json what is known of them (see manifest.rs)
//! <cache>/locks/<owner>--<name>.lock                      held while one process fetches
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::at;
use crate::lock::Lock;
use crate::manifest::{self, Manifest, Stamp};
use crate::partial::sha256_of;
use crate::{HubError, HubOptions, Progress, Step};

/// One model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedModel {
    /// What [`remove`] and the command line take: the catalog's name, or `owner/name`.
    pub name: String,
    /// `owner/name` on the hub.
    pub id: String,
    /// The commit.
    pub revision: String,
    pub path: PathBuf,
    pub bytes: u64,
}

/// One file that [`verify`] has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The model's name.
    pub name: String,
    pub path: PathBuf,
    /// Is its digest what it was when it was fetched?
    pub is_right: bool,
}

/// All models, by name.
pub fn list(options: &HubOptions) -> Result<Vec<CachedModel>, HubError> {
    let mut models: Vec<CachedModel> =
        snapshots(options)?.into_iter().map(|(path, manifest)| found(path, manifest)).collect();
    models.sort_by(|left, right| (&left.name, &left.revision).cmp(&(&right.name, &right.revision)));
    Ok(models)
}

fn found(path: PathBuf, manifest: Manifest) -> CachedModel {
    let bytes = manifest.bytes();
    CachedModel { name: manifest.name, id: manifest.id, revision: manifest.revision, path, bytes }
}

/// Removes a model, in all its revisions, and returns the bytes that it took.
pub fn remove(name: &str, options: &HubOptions) -> Result<u64, HubError> {
    let is_meant = |model: &CachedModel| model.name.eq_ignore_ascii_case(name) || model.id.eq_ignore_ascii_case(name);
    let models: Vec<CachedModel> = list(options)?.into_iter().filter(is_meant).collect();
    let first = models.first().ok_or_else(|| HubError::NotCached { name: name.to_owned() })?;
    let _lock = lock(options, &first.id, &())?;
    let folder = model_dir(options, &first.id);
    fs::remove_dir_all(&folder).map_err(at(&folder))?;
    Ok(models.iter().map(|model| model.bytes).sum())
}

/// Reads every file of every model and compares its digest; files that are not right are reported, not removed.
pub fn verify(options: &HubOptions, progress: &dyn Progress) -> Result<Vec<Checked>, HubError> {
    let mut checked = Vec::new();
    for (folder, manifest) in snapshots(options)? {
        for (file, stamp) in &manifest.files {
            progress.step(Step::Verifying { file });
            let path = folder.join(file);
            let is_right = sha256_of(&path).is_ok_and(|sha256| sha256 == stamp.sha256);
            checked.push(Checked { name: manifest.name.clone(), path, is_right });
        }
    }
    Ok(checked)
}

fn snapshots(options: &HubOptions) -> Result<Vec<(PathBuf, Manifest)>, HubError> {
    let mut snapshots = Vec::new();
    for model in folders(&options.cache_dir.join("models"))? {
        for folder in folders(&model)? {
            snapshots.extend(Manifest::read(&folder).map(|manifest| (folder, manifest)));
        }
    }
    Ok(snapshots)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, HubError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(path)(error)),
    };
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect())
}

fn folder_name(id: &str) -> String {
    id.replace('/', "--")
}

fn model_dir(options: &HubOptions, id: &str) -> PathBuf {
    options.cache_dir.join("models").join(folder_name(id))
}

/// Keeps other processes from fetching the same model.
pub(crate) fn lock(options: &HubOptions, id: &str, progress: &dyn Progress) -> Result<Lock, HubError> {
    Lock::acquire(&options.cache_dir.join("locks").join(format!("{}.lock", folder_name(id))), progress)
}

/// One revision of one model, on disk.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) folder: PathBuf,
    manifest: Manifest,
}

impl Snapshot {
    /// `name` is what the model is served as, `revision` a commit.
    pub(crate) fn open(options: &HubOptions, name: &str, id: &str, revision: &str) -> Self {
        let folder = model_dir(options, id).join(revision);
        let empty = || Manifest {
            name: name.to_owned(),
            id: id.to_owned(),
            revision: revision.to_owned(),
            ..Manifest::default()
        };
        let manifest = Manifest::read(&folder).unwrap_or_else(empty);
        Self { folder, manifest }
    }

    /// The files that make up `selection`, if they are all here and as they were.
    pub(crate) fn find(&mut self, selection: &str, progress: &dyn Progress) -> Result<Option<Vec<String>>, HubError> {
        let Some(files) = self.manifest.selections.get(selection).cloned() else { return Ok(None) };
        for file in &files {
            if !self.has(file, progress)? {
                return Ok(None);
            }
        }
        Ok(Some(files))
    }

    /// Is `file` here and as it was? One that was touched is hashed again; one that is not right is removed.
    pub(crate) fn has(&mut self, file: &str, progress: &dyn Progress) -> Result<bool, HubError> {
        let path = self.folder.join(file);
        let Some(stamp) = self.manifest.files.get(file).filter(|_| path.is_file()).cloned() else { return Ok(false) };
        if stamp.fits(&path) {
            return Ok(true);
        }
        progress.step(Step::Verifying { file });
        if sha256_of(&path).map_err(at(&path))? == stamp.sha256 {
            self.record(file, stamp.sha256, &stamp.source)?;
            return Ok(true);
        }
        fs::remove_file(&path).map_err(at(&path))?;
        self.manifest.files.remove(file);
        self.manifest.write(&self.folder)?;
        Ok(false)
    }

    /// Remembers a file whose digest was right just now.
    pub(crate) fn record(&mut self, file: &str, sha256: String, source: &str) -> Result<(), HubError> {
        let stamp = Stamp::new(&self.folder.join(file), sha256, source)?;
        self.manifest.files.insert(file.to_owned(), stamp);
        self.manifest.write(&self.folder)
    }

    /// Remembers that `files` are all that `selection` asked for.
    pub(crate) fn complete(&mut self, selection: &str, files: Vec<String>) -> Result<(), HubError> {
        self.manifest.selections.insert(selection.to_owned(), files);
        self.manifest.write(&self.folder)
    }
}

/// The commit that a branch, tag or commit meant when it was fetched.
pub(crate) fn read_ref(options: &HubOptions, id: &str, revision: &str) -> Option<String> {
    let commit = fs::read_to_string(ref_path(options, id, revision)).ok()?.trim().to_owned();
    Some(commit).filter(|commit| crate::spec::is_name(commit))
}

pub(crate) fn write_ref(options: &HubOptions, id: &str, revision: &str, commit: &str) -> Result<(), HubError> {
    let path = ref_path(options, id, revision);
    let folder = path.parent().expect("a ref has a folder");
    fs::create_dir_all(folder).map_err(at(folder))?;
    manifest::replace(&path, commit.as_bytes())
}

fn ref_path(options: &HubOptions, id: &str, revision: &str) -> PathBuf {
    model_dir(options, id).join("refs").join(revision.replace('/', "--"))
}
