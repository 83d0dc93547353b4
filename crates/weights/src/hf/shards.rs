//! A folder's safetensors: one file, or several that an index maps names to.

use std::collections::HashMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::json;
use super::quantization::RawTensor;
use super::safetensors_file::SafetensorsFile;
use crate::{Problem, WeightsError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

pub(super) struct Shards {
    files: Vec<SafetensorsFile>,
    /// A tensor's name to an index in `files`.
    places: HashMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Shards {
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if index.exists() {
            Self::open_index(folder, &index)
        } else if single.exists() {
            Self::open_file(&single)
        } else {
            Err(Problem::malformed(format!("has neither {SINGLE} nor {INDEX}")).at(folder))
        }
    }

    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let file = SafetensorsFile::open(path)?;
        let places = file.names().into_iter().map(|name| (name, 0)).collect();
        Ok(Self { files: vec![file], places })
    }

    fn open_index(folder: &Path, path: &Path) -> Result<Self, WeightsError> {
        let index: Index = json::parse(path)?;
        let mut shards = Self { files: Vec::new(), places: HashMap::new() };
        let mut opened = HashMap::new();
        for (name, shard) in index.weight_map {
            let place = match opened.get(&shard) {
                Some(place) => *place,
                None => {
                    check_name(&shard).map_err(|problem| problem.at(path))?;
                    shards.files.push(SafetensorsFile::open(&folder.join(&shard))?);
                    opened.insert(shard.clone(), shards.files.len() - 1);
                    shards.files.len() - 1
                }
            };
            if !shards.files[place].has(&name) {
                return Err(
                    Problem::tensor(&name, format!("the index places it in {shard}, but it is not there")).at(path)
                );
            }
            shards.places.insert(name, place);
        }
        Ok(shards)
    }

    pub fn file_of(&self, name: &str) -> Option<&SafetensorsFile> {
        self.places.get(name).map(|place| &self.files[*place])
    }

    /// The tensor of this name as its file has it.
    pub fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        self.file_of(name)?.raw(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    pub fn files(&self) -> impl Iterator<Item = &SafetensorsFile> {
        self.files.iter()
    }
}

/// A shard lies in the folder of its index: its name is a name and no path.
fn check_name(shard: &str) -> Result<(), Problem> {
    let mut components = Path::new(shard).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if plain && !shard.contains(['/', '\\', '\0']) && shard.ends_with(".safetensors") {
        return Ok(());
    }
    Err(Problem::malformed(format!(
        "names the shard {shard:?}, which is not the name of a .safetensors file in its folder"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_stays_in_its_folder() {
        assert!(check_name("model-00001-of-00002.safetensors").is_ok());
        for name in [
            "../x.safetensors",
            "/x.safetensors",
            "a/x.safetensors",
            "a\\x.safetensors",
            "..",
            "",
            "x.bin",
            "x.safetensors/",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
