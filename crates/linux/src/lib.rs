//! The kernel, wrapped once: cgroups, mounts, safe path walking, namespaces, netlink, nftables, pidfds.
