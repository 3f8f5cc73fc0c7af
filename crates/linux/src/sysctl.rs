//! `/proc/sys`, by dotted key; keys under `net` belong to the network namespace of the thread that writes.

use std::io;
use std::path::PathBuf;

use crate::netns::Netns;

/// The file of a key. An interface name may hold dots, so segments are given apart.
fn path(segments: &[&str]) -> io::Result<PathBuf> {
    let mut path = PathBuf::from("/proc/sys");
    for segment in segments {
        if segment.is_empty() || *segment == "." || *segment == ".." || segment.contains(['/', '\0']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("sysctl segment {segment:?}")));
        }
        path.push(segment);
    }
    Ok(path)
}

/// Reads `["net", "ipv4", "ip_forward"]`.
pub fn read(segments: &[&str]) -> io::Result<String> {
    std::fs::read_to_string(path(segments)?).map(|s| s.trim_end().to_owned())
}

/// Writes a value, unless it is already there: a read-only `/proc/sys` that holds the right value is fine.
pub fn write(segments: &[&str], value: &str) -> io::Result<()> {
    if read(segments).is_ok_and(|now| now == value) {
        return Ok(());
    }
    std::fs::write(path(segments)?, value)
}

/// Writes several values inside a network namespace.
pub fn write_in(netns: &Netns, values: &[(&[&str], &str)]) -> io::Result<()> {
    netns.run(|| values.iter().try_for_each(|(segments, value)| write(segments, value)))?
}
