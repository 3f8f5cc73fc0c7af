//! The names of capabilities; sets are bit masks, as the kernel's and the shim's are.

use std::fmt;

/// In the kernel's order: the index is the number.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has when nobody asks for more or less; containerd's and Docker's set.
pub const DEFAULT: u64 = 0xa804_25fb;
/// Every capability there is.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// A name that no capability has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(pub String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown capability {:?}", self.0)
    }
}

impl std::error::Error for Unknown {}

/// The mask of one name, with or without `CAP_`, in any case; `ALL` is every one.
pub fn mask(name: &str) -> Result<u64, Unknown> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(ALL);
    }
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = NAMES.iter().position(|known| known[4..] == *bare);
    number.map(|number| 1 << number).ok_or_else(|| Unknown(name.to_owned()))
}

/// A set after Kubernetes' `add` and `drop`. `ALL` in either comes first, so that single names refine it.
pub fn change<'a>(
    base: u64,
    add: impl IntoIterator<Item = &'a str>,
    drop: impl IntoIterator<Item = &'a str>,
) -> Result<u64, Unknown> {
    let masks = |names: Vec<&str>| names.into_iter().map(mask).collect::<Result<Vec<u64>, Unknown>>();
    let (add, drop) = (masks(add.into_iter().collect())?, masks(drop.into_iter().collect())?);
    let mut set = base;
    if add.contains(&ALL) {
        set = ALL;
    }
    if drop.contains(&ALL) {
        set = 0;
    }
    for one in add.into_iter().filter(|one| *one != ALL) {
        set |= one;
    }
    for one in drop.into_iter().filter(|one| *one != ALL) {
        set &= !one;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_masks() {
        let check = |add: &[&str], drop: &[&str], expected: Result<u64, Unknown>| {
            assert_eq!(change(DEFAULT, add.iter().copied(), drop.iter().copied()), expected);
        };
        check(&[], &[], Ok(DEFAULT));
        check(&["net_admin"], &["CAP_NET_RAW"], Ok((DEFAULT | 1 << 12) & !(1 << 13)));
        check(&["NET_BIND_SERVICE"], &["ALL"], Ok(1 << 10));
        check(&["ALL"], &["SYS_ADMIN"], Ok(ALL & !(1 << 21)));
        check(&["NET_ADMINS"], &[], Err(Unknown("NET_ADMINS".into())));
        assert_eq!(mask("CAP_CHECKPOINT_RESTORE"), Ok(1 << 40));
    }
}
