//! Files of a PKI directory: secrets are 0600, the rest 0644, directories 0700, replaced by rename so that a reader
//! sees the old content or the new, never a part.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Error, Result};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// 0600
    Secret,
    /// 0644
    Public,
}

/// What must survive a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Synced before and after the rename: authorities and signing keys, which cannot be made again.
    Synced,
    /// Renamed only: what is made again when it is missing or torn.
    Renamed,
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

/// Makes a directory (and its parents) with mode 0700; an existing one keeps its parents' modes and loses others' access.
pub fn private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error("creating directory", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io_error("restricting", path))
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(io_error("reading", path))
}

/// The content, or nothing when there is no such file.
pub fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("reading", path)(e)),
    }
}

/// Replaces a file whole.
pub fn write(path: &Path, content: &[u8], access: Access, durability: Durability) -> Result<()> {
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let temporary: PathBuf = path.with_file_name(format!(".{name}.{}.{unique}", std::process::id()));
    let mode = match access {
        Access::Secret => 0o600,
        Access::Public => 0o644,
    };
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The umask may have taken bits of a public file's mode.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if durability == Durability::Synced {
            let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    })();
    result.map_err(|e| {
        // Nothing to do when this fails too: the name is unique and the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        io_error("writing", path)(e)
    })
}
