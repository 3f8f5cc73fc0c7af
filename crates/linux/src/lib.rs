//! The kernel, wrapped once: cgroups, mounts, safe path walking, namespaces, netlink, nftables, pidfds.

/// AppArmor's profiles.
pub mod app_armor;
/// The names of capabilities.
pub mod capabilities;
/// Control groups.
pub mod cgroup;
/// The connection table.
pub mod conntrack;
/// Network interfaces, and what goes through them.
pub mod interface;
/// Mounts of the host.
pub mod mount;
/// Requests to the kernel's routing and packet-filter subsystems: links, addresses, routes, neighbours.
pub mod netlink;
/// Network namespaces.
pub mod netns;
/// nftables.
pub mod nft;
/// Walking paths that others may change.
pub mod path;
/// Processes by descriptor.
pub mod pidfd;
/// Seccomp profiles, compiled.
pub mod seccomp;
/// Where a test may kill the process.
pub mod steps;
/// `/proc/sys`.
pub mod sysctl;
/// Users and groups of an image.
pub mod user;
