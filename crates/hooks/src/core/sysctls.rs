//! Kernel parameters of pods: their names, and that none of them belongs to a namespace shared with the host.

use api::core::v1::{PodSpec, Sysctl};
use apimachinery::field::{Error, ErrorList, Path};
use std::collections::HashSet;

const MAX_LENGTH: usize = 253;
const PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Parameters of the IPC namespace. Upstream: component-helpers sysctl.
const IPC: &[&str] = &[
    "kernel.msg",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

fn is_valid_name(name: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(|c| alphanumeric(*c))
            && bytes.last().is_some_and(|c| alphanumeric(*c))
            && bytes.iter().all(|c| alphanumeric(*c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= MAX_LENGTH && name.split(['.', '/']).all(segment)
}

/// The name with dots: a slash separates as well, and the first separator says which of the two does.
fn normalized(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

pub(super) fn validate(errors: &mut ErrorList, spec: &PodSpec, sysctls: &[Sysctl], path: &Path) {
    let mut seen = HashSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !is_valid_name(name) {
            let text = format!("must have at most {MAX_LENGTH} characters and match regex {PATTERN}");
            errors.push(Error::invalid(&path, name, text));
        } else if !seen.insert(name) {
            errors.push(Error::duplicate(&path, name));
        }
        let plain = normalized(name);
        if spec.host_network && plain.starts_with("net.") {
            errors.push(Error::invalid(&path, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc && (IPC.contains(&&*plain) || plain.starts_with("fs.mqueue.")) {
            errors.push(Error::invalid(&path, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, valid) in [
            ("kernel.shmmax", true),
            ("net/ipv4/conf/eth0.100/x", true),
            ("foo-", false),
            ("foo..bar", false),
            ("Kernel.x", false),
            ("a.b_c-d", true),
        ] {
            assert_eq!(is_valid_name(name), valid, "{name}");
        }
        assert_eq!(normalized("net/ipv4/conf/eth0.100/x"), "net.ipv4.conf.eth0/100.x");
    }
}
