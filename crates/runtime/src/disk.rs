//! Files that are whole or absent: written beside, then renamed; and, where a power cut must not matter, synced.

use linux::steps::step;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Whether a write must outlive a power cut, or only a crash of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// For what describes running processes: those do not outlive a power cut either.
    Crash,
    /// For what is expensive to get again.
    Power,
}

/// Replaces `path` by `bytes`, mode 0600. Nobody sees a half of it.
pub(crate) fn write(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    let attempt = (|| {
        step("writing a file");
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        if durability == Durability::Power {
            file.sync_all()?;
        }
        step("putting a written file in its place");
        fs::rename(&temporary, path)?;
        if durability == Durability::Power {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    })();
    if attempt.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    attempt
}

/// Removes what writes have left beside the files of `dir` that they were to replace, cut off by an end of the process.
pub(crate) fn remove_temporaries(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// `write` of a value as JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?, durability)
}

/// The value in a JSON file; `None` if there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a tree; one that is not there is removed already.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    step("removing a tree");
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A directory of ours, mode 0700.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    step("making a directory");
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
