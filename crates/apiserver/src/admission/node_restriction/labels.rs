//! Which labels a kubelet may not put on its node: those that would steer workloads to it.

use crate::admission::Operation;
use std::collections::BTreeSet;

/// Labels under reserved domains that a kubelet may set.
const OWN: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within =
        |d: &str| domain.strip_suffix(d).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let own = OWN.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    kubernetes && !own
}

/// What is wrong with the labels that a node's object gets.
pub(super) fn refusal<'a>(
    modified: impl IntoIterator<Item = &'a str>,
    node: &str,
    operation: Operation,
) -> Option<String> {
    let forbidden: BTreeSet<&str> = modified.into_iter().filter(|label| forbidden(label)).collect();
    if forbidden.is_empty() {
        return None;
    }
    let list = forbidden.into_iter().collect::<Vec<_>>().join(", ");
    Some(match operation {
        Operation::Create => format!(
            "node {} is not allowed to set the following labels: {list}",
            apimachinery::quote::quote(node)
        ),
        _ => format!("is not allowed to modify labels: {list}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for (label, is) in [
            ("x", false),
            ("example.com/x", false),
            ("kubernetes.io/hostname", false),
            ("kubernetes.io/other", true),
            ("node.kubernetes.io/anything", false),
            ("a.kubelet.kubernetes.io/b", false),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("k8s.io/x", true),
            ("notk8s.io/x", false),
            ("topology.kubernetes.io/zone", false),
            ("topology.kubernetes.io/other", true),
        ] {
            assert_eq!(forbidden(label), is, "{label}");
        }
    }
}
