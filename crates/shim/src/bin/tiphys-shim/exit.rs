//! What a shim writes down, whole or not at all. Exits durably, before anyone is told: synced, and the directory synced.
//! What describes running processes is as short-lived as they are and needs no disk to wait for.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use shim::protocol::Exit;

/// Replaces `dir/name` by the JSON of `value`, for good.
pub(crate) fn record<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    replace(dir, name, value, File::sync_all)?;
    File::open(dir)?.sync_all()
}

/// The same until the next boot.
pub(crate) fn note<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    replace(dir, name, value, |_| Ok(()))
}

fn replace<T: Serialize>(
    dir: &Path,
    name: &str,
    value: &T,
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    settle(&file)?;
    std::fs::rename(&temporary, dir.join(name))
}

/// A wait status in upstream's terms.
pub(crate) fn from_status(pid: i32, status: libc::c_int) -> Exit {
    let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
    let code = if signal != 0 { 128 + signal } else { libc::WEXITSTATUS(status) };
    Exit { code, signal, pid, finished_at: crate::sys::now(), ..Exit::default() }
}
