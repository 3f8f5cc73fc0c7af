//! Roles and bindings that are there only while a feature is on, and what features add to the roles that always are.

use super::policy::{Binding, Role, Rule, binding, named, role, rule};
use component::gates::FeatureGates;

/// What a gate adds.
struct Gated {
    gate: &'static str,
    roles: &'static [Role],
    bindings: &'static [Binding],
    /// For roles that are there without it, by name.
    rules: &'static [(&'static str, Rule)],
}

const GATED: &[Gated] = &[
    Gated {
        gate: "ClusterTrustBundle",
        roles: &[
            role(
                "system:cluster-trust-bundle-discovery",
                &[rule("get list watch", "certificates.k8s.io", "clustertrustbundles")],
            ),
            role(
                "system:controller:kube-apiserver-serving-clustertrustbundle-publisher",
                &[
                    named("attest", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-serving"),
                    rule("create delete list update watch", "certificates.k8s.io", "clustertrustbundles"),
                    rule("create patch update", "core events.k8s.io", "events"),
                ],
            ),
        ],
        bindings: &[
            binding(
                "system:cluster-trust-bundle-discovery",
                "system:cluster-trust-bundle-discovery",
                "group:system:serviceaccounts",
            ),
            binding(
                "system:controller:kube-apiserver-serving-clustertrustbundle-publisher",
                "system:controller:kube-apiserver-serving-clustertrustbundle-publisher",
                "sa:kube-system/kube-apiserver-serving-clustertrustbundle-publisher",
            ),
        ],
        rules: &[("system:node", rule("get list watch", "certificates.k8s.io", "clustertrustbundles"))],
    },
    Gated {
        gate: "DRADeviceTaints",
        roles: &[role(
            "system:controller:device-taint-eviction-controller",
            &[
                rule("delete get list watch", "core", "pods"),
                rule("patch update", "core", "pods/status"),
                rule("get list watch", "resource.k8s.io", "resourceclaims"),
                rule("get list watch", "resource.k8s.io", "resourceslices"),
                rule("get list watch", "resource.k8s.io", "deviceclasses"),
                rule("create patch update", "core events.k8s.io", "events"),
            ],
        )],
        bindings: &[binding(
            "system:controller:device-taint-eviction-controller",
            "system:controller:device-taint-eviction-controller",
            "sa:kube-system/device-taint-eviction-controller",
        )],
        rules: &[],
    },
    Gated {
        gate: "DRADeviceTaintRules",
        roles: &[],
        bindings: &[],
        rules: &[
            ("system:kube-scheduler", rule("get list watch", "resource.k8s.io", "devicetaintrules")),
            (
                "system:controller:device-taint-eviction-controller",
                rule("patch update", "resource.k8s.io", "devicetaintrules/status"),
            ),
            (
                "system:controller:device-taint-eviction-controller",
                rule("get list watch", "resource.k8s.io", "devicetaintrules"),
            ),
        ],
    },
    Gated {
        gate: "DRAExtendedResource",
        roles: &[],
        bindings: &[],
        rules: &[("system:kube-scheduler", rule("create delete", "resource.k8s.io", "resourceclaims"))],
    },
    Gated {
        gate: "DRAResourceClaimGranularStatusAuthorization",
        roles: &[],
        bindings: &[],
        rules: &[
            ("system:kube-scheduler", rule("patch update", "resource.k8s.io", "resourceclaims/binding")),
            (
                "system:controller:resource-claim-controller",
                rule("patch update", "resource.k8s.io", "resourceclaims/binding"),
            ),
        ],
    },
    Gated {
        gate: "PodCertificateRequest",
        roles: &[role(
            "system:controller:podcertificaterequestcleaner",
            &[rule("delete get list watch", "certificates.k8s.io", "podcertificaterequests")],
        )],
        bindings: &[binding(
            "system:controller:podcertificaterequestcleaner",
            "system:controller:podcertificaterequestcleaner",
            "sa:kube-system/podcertificaterequestcleaner",
        )],
        rules: &[(
            "system:node",
            rule("create get list watch", "certificates.k8s.io", "podcertificaterequests"),
        )],
    },
];

fn on(gates: &FeatureGates) -> impl Iterator<Item = &'static Gated> {
    GATED.iter().filter(|gated| gates.enabled(gated.gate))
}

pub(super) fn roles(gates: &FeatureGates) -> impl Iterator<Item = &'static Role> {
    on(gates).flat_map(|gated| gated.roles)
}

pub(super) fn bindings(gates: &FeatureGates) -> impl Iterator<Item = &'static Binding> {
    on(gates).flat_map(|gated| gated.bindings)
}

/// What a role has beyond its own rules.
pub(super) fn rules_of(name: &str, gates: &FeatureGates) -> impl Iterator<Item = &'static Rule> {
    on(gates).flat_map(|gated| gated.rules).filter(move |(of, _)| *of == name).map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::super::rules_of;
    use crate::features::Features;

    #[test]
    fn requests_of_pods_are_cleaned_where_there_are_some() {
        let cleans = |gates: &str| {
            let (features, _) = Features::parse(gates, "").unwrap();
            super::roles(&features.gates).any(|role| role.name.ends_with(":podcertificaterequestcleaner"))
        };
        assert!(!cleans("ClusterTrustBundle=true"));
        assert!(cleans("PodCertificateRequest=true"));
    }

    #[test]
    fn devices_are_guarded_by_several() {
        let check = |gates: &str, role: &str, resource: &str| {
            let (features, _) = Features::parse(gates, "").unwrap();
            rules_of(role, &features.gates).iter().any(|rule| rule.resources == [resource])
        };
        let evicting = "system:controller:device-taint-eviction-controller";
        let roles = |gates: &str| {
            let (features, _) = Features::parse(gates, "").unwrap();
            super::roles(&features.gates).any(|role| role.name == evicting)
        };
        assert!(roles("") && !roles("DRADeviceTaints=false"));
        for role in ["system:kube-scheduler", evicting] {
            assert!(!check("", role, "devicetaintrules"));
            assert!(check("DRADeviceTaintRules=true", role, "devicetaintrules"));
        }
        let off = "DRAResourceClaimGranularStatusAuthorization=false";
        assert!(check("", "system:kube-scheduler", "resourceclaims/binding"));
        assert!(!check(off, "system:kube-scheduler", "resourceclaims/binding"));
    }

    #[test]
    fn nodes_read_trust_bundles_where_there_are_some() {
        let reads = |gates: &str| {
            let (features, _) = Features::parse(gates, "").unwrap();
            let rules = rules_of("system:node", &features.gates);
            rules.iter().any(|rule| rule.resources == ["clustertrustbundles"])
        };
        assert!(!reads(""));
        assert!(reads("ClusterTrustBundle=true"));
    }
}
