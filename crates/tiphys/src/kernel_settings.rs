//! The kernel settings that a node changes for the whole network namespace, and how they were before: `tiphys reset`
//! puts them back. The record lies under `/run`, which a reboot empties as it resets the settings.

use crate::places::Places;
use anyhow::{Context as _, Result};
use linux::sysctl;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const FILE: &str = "kernel-settings.json";

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The inode of the network namespace.
    netns: u64,
    /// Values by path below `/proc/sys`. A path, since names of interfaces may hold dots.
    before: BTreeMap<String, String>,
}

/// Writes down how the settings are, before a node changes them; what an earlier start wrote stays.
pub(crate) fn remember(places: &Places) -> Result<()> {
    let path = places.run_dir.join(FILE);
    let netns = this_netns()?;
    if read(&path)?.is_some_and(|record| record.netns == netns) {
        return Ok(());
    }
    let mut before = BTreeMap::new();
    for key in keys() {
        let segments: Vec<&str> = key.split('/').collect();
        if let Ok(value) = sysctl::read(&segments) {
            before.insert(key, value);
        }
    }
    fs::create_dir_all(&places.run_dir).with_context(|| places.run_dir.display().to_string())?;
    write(&path, &Record { netns, before })
}

/// Puts the settings back, or leaves that to another server in this network namespace, which still needs them.
pub(crate) fn restore(places: &Places) -> Result<()> {
    let Some(record) = read(&places.run_dir.join(FILE))? else { return Ok(()) };
    if record.netns != this_netns()? {
        return Ok(());
    }
    for other in others(&places.run_dir)? {
        if let Some(theirs) = read(&other)?.filter(|theirs| theirs.netns == record.netns) {
            let before = theirs.before.into_iter().chain(record.before).collect();
            return write(&other, &Record { netns: record.netns, before });
        }
    }
    // Forwarding resets settings of interfaces, so it comes before them, as `all` does in the alphabet's order.
    for (key, value) in &record.before {
        let segments: Vec<&str> = key.split('/').collect();
        match sysctl::write(&segments, value) {
            // The interface is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.with_context(|| format!("putting back {key}"))?,
        }
    }
    Ok(())
}

fn keys() -> Vec<String> {
    let mut keys = vec!["net/ipv4/ip_forward".to_owned(), "net/ipv4/conf/all/route_localnet".to_owned()];
    keys.push("net/ipv6/conf/all/forwarding".to_owned());
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        if let Some(interface) = entry.file_name().to_str() {
            keys.push(format!("net/ipv6/conf/{interface}/accept_ra"));
        }
    }
    keys
}

fn this_netns() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    Ok(fs::metadata(path).context(path)?.ino())
}

/// The records of other servers on this machine.
fn others(ours: &Path) -> Result<Vec<PathBuf>> {
    let (Some(parent), Some(own)) = (ours.parent(), ours.file_name()) else { return Ok(Vec::new()) };
    let entries = fs::read_dir(parent).with_context(|| parent.display().to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let servers = names.filter(|name| name != own && name.to_string_lossy().starts_with("tiphys"));
    Ok(servers.map(|name| parent.join(name).join(FILE)).collect())
}

fn read(path: &Path) -> Result<Option<Record>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn write(path: &Path, record: &Record) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(record).map_err(io::Error::from)?)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| path.display().to_string())
}
