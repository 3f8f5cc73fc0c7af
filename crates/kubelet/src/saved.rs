//! Files in which the kubelet keeps what it must know after a restart: each is replaced whole, so that one that was being
//! written when the kubelet died is the old one.

use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What a file is called while it is written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Writes the file as JSON, for root alone.
pub(crate) fn replace(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    drop(file);
    std::fs::rename(temporary, path)
}

/// A resource manager's state, with a checksum of it as it is without one. Fails in upstream's words.
pub(crate) fn checkpoint<F: Serialize>(
    path: &Path,
    mut file: F,
    checksum: impl Fn(&mut F) -> &mut u32,
) -> Result<(), String> {
    let failed = |error: &dyn Display| format!("could not save state to checkpoint: {error}");
    *checksum(&mut file) = 0;
    let bytes = serde_json::to_vec(&file).map_err(|error| failed(&error))?;
    *checksum(&mut file) = apimachinery::rand_name::fnv32a(&bytes);
    replace(path, &file).map_err(|error| failed(&error))
}
