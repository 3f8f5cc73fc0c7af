//! The name servers of a resolv.conf, read again when the file changed.
//!
//! Besides plain addresses, `[address]:port` is understood, as in OpenBSD's.

use std::fs::Metadata;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// As many servers as CoreDNS takes.
const MAX_SERVERS: usize = 15;

/// What a file looked like, to see whether it changed: also when it was replaced, or a link to it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Stamp> {
        std::fs::metadata(path).map(|m| Stamp::new(&m))
    }

    fn new(metadata: &Metadata) -> Stamp {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Stamp { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), modified }
    }
}

/// The `nameserver` lines, in order, without repetition.
pub(crate) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(address) else { continue };
        if !servers.contains(&server) && servers.len() < MAX_SERVERS {
            servers.push(server);
        }
    }
    servers
}

fn address(word: &str) -> Option<SocketAddr> {
    if let Some((address, port)) = word.strip_prefix('[').and_then(|w| w.split_once("]:")) {
        return Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?));
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 53));
    }
    // The scope of a link-local address: an index here, for a name needs the kernel.
    let (address, scope) = word.split_once('%')?;
    let address = std::net::SocketAddrV6::new(address.parse().ok()?, 53, 0, scope.parse().ok()?);
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # x\n\
            nameserver 192.0.2.1\nnameserver bad\nnameserver [127.0.0.1]:5300\nnameserver fe80::1%3\nnameserver\n";
        let found: Vec<String> = name_servers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.1:5300", "[fe80::1%3]:53"]);
        let many: String = (0..99).map(|n| format!("nameserver 192.0.2.{n}\n")).collect();
        assert_eq!(name_servers(&many).len(), MAX_SERVERS);
    }
}
