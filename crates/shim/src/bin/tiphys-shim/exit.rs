//! Exits, recorded durably before anyone is told: written beside, synced, renamed, and the directory synced.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use shim::protocol::Exit;

/// Replaces `dir/name` by the JSON of `value`.
pub(crate) fn record<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// A wait status in upstream's terms.
pub(crate) fn from_status(pid: i32, status: libc::c_int) -> Exit {
    let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
    let code = if signal != 0 { 128 + signal } else { libc::WEXITSTATUS(status) };
    Exit { code, signal, pid, finished_at: crate::sys::now(), ..Exit::default() }
}
