//! The `/etc/hosts` that containers see. Pure. Upstream: `managedHostsFileContent`.

use api::core::v1::HostAlias;
use std::fmt::Write as _;

/// Content for a pod with a network of its own.
pub(crate) fn managed(ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = match domain {
            "" => writeln!(out, "{ip}\t{hostname}"),
            domain => writeln!(out, "{ip}\t{hostname}.{domain}\t{hostname}"),
        };
    }
    out + &entries(aliases)
}

/// Content for a pod on the node's network: the node's own file and the aliases.
pub(crate) fn of_node(node_file: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node_file}{}", entries(aliases))
}

fn entries(aliases: &[HostAlias]) -> String {
    let mut out = String::new();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
    }
    out
}
