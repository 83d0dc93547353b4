//! What the cache holds, notices, lists and gives back.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::time::Duration;

use common::{FILE, Log, Reply, Server, TempDir, model_bytes, options, stored};
use hub::{HubError, list, remove, resolve, verify};

#[test]
fn flipped_bits_are_found_by_verify_and_edits_at_the_next_start() {
    let (temp, server) = (TempDir::new(), Server::start(|request, _| Reply::ranged(request, &model_bytes())));
    let options = options(&temp.0, &server.url);
    let path = resolve(None, &options, &()).unwrap().path;
    assert!(verify(&options, &()).unwrap().iter().all(|file| file.is_right));

    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = model_bytes();
    bytes[77] ^= 4;
    fs::write(&path, &bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    resolve(None, &options, &()).unwrap();
    assert_eq!(server.requests().len(), 1, "size and time are as they were");
    let checked = verify(&options, &()).unwrap();
    assert_eq!((checked.len(), checked[0].is_right, &checked[0].path), (1, false, &path));

    File::options().write(true).open(&path).unwrap().set_modified(modified + Duration::from_secs(1)).unwrap();
    let log = Log::default();
    resolve(None, &options, &log).unwrap();
    assert_eq!(server.requests().len(), 2, "fetched again");
    assert_eq!(log.steps()[0], format!("verifying {FILE}"));
    assert_eq!(fs::read(&path).unwrap(), model_bytes());
}

#[test]
fn a_touched_file_is_read_once_more_and_kept() {
    let (temp, server) = (TempDir::new(), Server::start(|request, _| Reply::ranged(request, &model_bytes())));
    let options = options(&temp.0, &server.url);
    let path = resolve(None, &options, &()).unwrap().path;
    let later = fs::metadata(&path).unwrap().modified().unwrap() + Duration::from_secs(5);
    File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    for steps in [vec![format!("verifying {FILE}")], vec![]] {
        let log = Log::default();
        resolve(None, &options, &log).unwrap();
        assert_eq!(log.steps(), steps);
    }
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn files_and_manifests_that_went_missing_are_fetched_again() {
    let (temp, server) = (TempDir::new(), Server::start(|request, _| Reply::ranged(request, &model_bytes())));
    let options = options(&temp.0, &server.url);
    let manifest = stored(&temp.0).with_file_name(".tokenmill.json");
    let damages: [&dyn Fn(); 3] =
        [&|| fs::remove_file(stored(&temp.0)).unwrap(), &|| fs::remove_file(&manifest).unwrap(), &|| {
            fs::write(&manifest, "{ torn").unwrap()
        }];
    for (idx, damage) in damages.into_iter().enumerate() {
        resolve(None, &options, &()).unwrap();
        damage();
        resolve(None, &options, &()).unwrap();
        assert_eq!(server.requests().len(), idx + 2);
    }
}

#[test]
fn models_are_listed_and_removed() {
    let (temp, server) = (TempDir::new(), Server::start(|request, _| Reply::ranged(request, &model_bytes())));
    let options = options(&temp.0, &server.url);
    assert_eq!(list(&options).unwrap(), []);
    assert!(matches!(remove("Tiny", &options), Err(HubError::NotCached { .. })));
    for name in ["tiny", "owner/tiny-gguf"] {
        resolve(None, &options, &()).unwrap();
        let models = list(&options).unwrap();
        assert_eq!((models.len(), models[0].name.as_str(), models[0].bytes), (1, "Tiny", 100_000));
        assert_eq!((models[0].id.as_str(), models[0].revision.as_str()), ("owner/tiny-GGUF", common::REVISION));
        assert_eq!(remove(name, &options).unwrap(), 100_000);
        assert_eq!(list(&options).unwrap(), []);
        assert!(!stored(&temp.0).exists());
    }
}
