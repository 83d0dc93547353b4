//! Which files of a repository make up the model that was asked for.

use crate::source::Wanted;

/// Formats to take where a repository has many, best first: four bits a weight is what most people come for.
const PREFERRED: [&str; 4] = ["Q4_K_M", "Q4_0", "Q4_1", "Q8_0"];

/// The files to fetch, or why it is not clear which.
pub(crate) fn select(files: &[Wanted], asked: Option<&str>) -> Result<Vec<Wanted>, String> {
    let ggufs: Vec<&Wanted> = files.iter().filter(|file| has_extension(file, ".gguf")).collect();
    if let Some(asked) = asked {
        return one(&matching(&ggufs, asked), &ggufs).map(|file| vec![file.clone()]);
    }
    let is_weights = |file: &&Wanted| has_extension(file, ".safetensors") && !file.file.contains('/');
    if files.iter().any(|file| is_weights(&file)) {
        return Ok(files.iter().filter(|file| is_weights(file) || is_description(file)).cloned().collect());
    }
    let preferred = || PREFERRED.iter().map(|format| matching(&ggufs, format)).find(|found| found.len() == 1);
    let candidates = if ggufs.len() == 1 { ggufs.clone() } else { preferred().unwrap_or_default() };
    one(&candidates, &ggufs).map(|file| vec![file.clone()])
}

fn has_extension(file: &Wanted, extension: &str) -> bool {
    file.file.to_ascii_lowercase().ends_with(extension)
}

/// JSON and templates at the top: configuration, tokenizer, the index of a sharded checkpoint.
fn is_description(file: &Wanted) -> bool {
    let is_text = [".json", ".jinja"].iter().any(|extension| has_extension(file, extension));
    is_text && !file.file.contains('/')
}

/// The file of that name, or those that have it in theirs.
fn matching<'a>(files: &[&'a Wanted], asked: &str) -> Vec<&'a Wanted> {
    if let Some(&exact) = files.iter().find(|file| file.file == asked) {
        return vec![exact];
    }
    let asked = asked.to_ascii_lowercase();
    let is_word = |file: &str| {
        let after = file.find(&asked).map(|start| &file[start + asked.len()..]);
        after.is_some_and(|after| !after.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_'))
    };
    files.iter().copied().filter(|file| is_word(&file.file.to_ascii_lowercase())).collect()
}

fn one<'a>(found: &[&'a Wanted], all: &[&Wanted]) -> Result<&'a Wanted, String> {
    match (found, all) {
        ([only], _) if only.file.contains("-of-") => {
            Err(format!("{} is one part of several, which is not supported for GGUF files", only.file))
        }
        ([only], _) => Ok(only),
        (_, []) => Err("it has neither safetensors nor GGUF files".to_owned()),
        (_, all) => {
            let names: Vec<&str> = all.iter().map(|file| file.file.as_str()).collect();
            Err(format!("name one of its files, as in owner/name:{}; it has {}", names[0], names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_files_are_taken() {
        let quants = ["README.md", "m.Q2_K.gguf", "m.Q4_K_M.gguf", "m.Q4_K_S.gguf", "m.Q4_1.gguf"];
        let checkpoint =
            ["README.md", "config.json", "model.safetensors", "original/x.safetensors", "tokenizer.json", "a.bin"];
        type Case<'a> = (&'a [&'a str], Option<&'a str>, Result<&'a [&'a str], &'a str>);
        let cases: [Case<'_>; 11] = [
            (&quants, None, Ok(&["m.Q4_K_M.gguf"])),
            (&quants, Some("Q4_1"), Ok(&["m.Q4_1.gguf"])),
            (&quants, Some("q4_k_s"), Ok(&["m.Q4_K_S.gguf"])),
            (&quants, Some("m.Q2_K.gguf"), Ok(&["m.Q2_K.gguf"])),
            (&quants, Some("Q4_K"), Err("name one of its files")),
            (&quants, Some("Q3"), Err("m.Q4_K_M.gguf, m.Q4_K_S.gguf")),
            (&["only.gguf"], None, Ok(&["only.gguf"])),
            (&["a.gguf", "b.gguf"], None, Err("name one of its files")),
            (&["a-00001-of-00002.gguf"], None, Err("one part of several")),
            (&checkpoint, None, Ok(&["config.json", "model.safetensors", "tokenizer.json"])),
            (&["README.md"], None, Err("neither safetensors nor GGUF")),
        ];
        for (files, asked, expected) in cases {
            let wanted = |file: &&str| Wanted { file: file.to_string(), size: None, sha256: None };
            let selected = select(&files.iter().map(wanted).collect::<Vec<_>>(), asked);
            match (selected, expected) {
                (Ok(selected), Ok(expected)) => {
                    assert_eq!(selected.iter().map(|file| file.file.as_str()).collect::<Vec<_>>(), expected);
                }
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
                (selected, expected) => panic!("{files:?} {asked:?}: {selected:?}, not {expected:?}"),
            }
        }
    }
}
