//! The kernel, wrapped once: cgroups, mounts, safe path walking, namespaces, netlink, nftables, pidfds.

/// Control groups.
pub mod cgroup;
/// The connection table.
pub mod conntrack;
/// Requests to the kernel's routing and packet-filter subsystems: links, addresses, routes, neighbours.
pub mod netlink;
/// Network namespaces.
pub mod netns;
/// nftables.
pub mod nft;
/// `/proc/sys`.
pub mod sysctl;
