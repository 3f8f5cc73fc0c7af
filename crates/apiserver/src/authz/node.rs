//! The Node authorizer: a kubelet reads the secrets, config maps, claims and tokens of the pods on its node and no
//! others. The graph is the index of an informer over pods, so that it changes with every pod, and by nothing else.

use super::rules::allow;
use super::{Attributes, Authorizer, Decision};
use crate::bootstrap;
use api::core::v1::{Pod, Volume};
use api::rbac::v1::PolicyRule;
use client::informer::Index;
use client::{Informer, Informers, Projection};
use futures::future::BoxFuture;

/// What a pod refers to, as index values `node|resource|namespace/name`.
#[derive(Debug)]
pub struct References(Vec<String>);

impl Projection for References {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let spec = &pod.spec;
        let (node, namespace) = (&spec.node_name, &pod.metadata.namespace);
        if node.is_empty() || rules::pod_conditions::is_terminal(&pod.status.phase) {
            return References(Vec::new());
        }
        let mut found = vec![
            ("pods", pod.metadata.name.as_str()),
            ("serviceaccounts", spec.service_account_name.as_str()),
        ];
        found.extend(spec.image_pull_secrets.iter().map(|s| ("secrets", s.name.as_str())));
        let containers = spec.containers.iter().chain(&spec.init_containers);
        let envs = containers.map(|c| (&c.env, &c.env_from));
        for (env, env_from) in envs.chain(spec.ephemeral_containers.iter().map(|c| (&c.env, &c.env_from))) {
            for source in env.iter().filter_map(|e| e.value_from.as_ref()) {
                found.extend(source.secret_key_ref.as_ref().map(|s| ("secrets", s.name.as_str())));
                found.extend(source.config_map_key_ref.as_ref().map(|c| ("configmaps", c.name.as_str())));
            }
            for source in env_from {
                found.extend(source.secret_ref.as_ref().map(|s| ("secrets", s.name.as_str())));
                found.extend(source.config_map_ref.as_ref().map(|c| ("configmaps", c.name.as_str())));
            }
        }
        spec.volumes.iter().for_each(|v| volume(v, &mut found));
        let mut values: Vec<String> =
            found.into_iter().map(|(kind, name)| format!("{node}|{kind}|{namespace}/{name}")).collect();
        values.sort();
        values.dedup();
        References(values)
    }

    fn indices() -> &'static [Index<Self>] {
        &[("reference", |pod| pod.0.clone())]
    }
}

fn volume<'a>(volume: &'a Volume, found: &mut Vec<(&'static str, &'a str)>) {
    found.extend(volume.secret.as_ref().map(|s| ("secrets", s.secret_name.as_str())));
    found.extend(volume.config_map.as_ref().map(|c| ("configmaps", c.name.as_str())));
    found.extend(
        volume.persistent_volume_claim.as_ref().map(|c| ("persistentvolumeclaims", c.claim_name.as_str())),
    );
    let secret = volume.csi.as_ref().and_then(|c| c.node_publish_secret_ref.as_ref());
    found.extend(secret.map(|s| ("secrets", s.name.as_str())));
    for source in volume.projected.iter().flat_map(|p| &p.sources) {
        found.extend(source.secret.as_ref().map(|s| ("secrets", s.name.as_str())));
        found.extend(source.config_map.as_ref().map(|c| ("configmaps", c.name.as_str())));
    }
}

/// The Node authorizer.
#[derive(Debug)]
pub struct NodeAuthorizer {
    pods: Informer<References>,
    /// What every node may do: the rules of `system:node`.
    rules: Vec<PolicyRule>,
}

impl NodeAuthorizer {
    pub fn new(informers: &Informers) -> Self {
        NodeAuthorizer { pods: informers.get(), rules: bootstrap::rules_of("system:node") }
    }

    pub async fn synced(&self) {
        self.pods.synced().await;
    }

    fn decide(&self, node: &str, a: &Attributes<'_>) -> Decision {
        let none = |reason: String| Decision::NoOpinion { reason };
        let allow_it = || Decision::Allow { reason: String::new() };
        let related = || {
            let value = format!("{node}|{}|{}/{}", a.resource, a.namespace, a.name);
            !self.pods.by_index("reference", &value).is_empty()
        };
        let by_relation = |what: &str| {
            if a.name.is_empty() {
                none(format!("No Object name found,  node '{node}' can only read {what} by name"))
            } else if related() {
                allow_it()
            } else {
                none(format!("no relationship found between node '{node}' and this object"))
            }
        };
        match (a.is_resource, a.group, a.resource, a.subresource) {
            (true, "", "secrets" | "configmaps", "") => match a.verb {
                "get" | "list" | "watch" => by_relation(a.resource),
                _ => none(format!("can only read resources of this type: {}", a.resource)),
            },
            (true, "", "persistentvolumeclaims", "") if a.verb == "get" => by_relation(a.resource),
            (true, "", "serviceaccounts", "token") => match a.verb {
                "create" => by_relation(a.resource),
                _ => none("only allowed to create tokens".into()),
            },
            (true, "coordination.k8s.io", "leases", "") => {
                if a.namespace != "kube-node-lease" {
                    none(format!(
                        "can only access leases in the \"kube-node-lease\" system namespace, not {:?}",
                        a.namespace
                    ))
                } else if a.verb != "create" && a.name != node {
                    none("can only access node lease with the same name as the requesting node".into())
                } else if matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
                    allow_it()
                } else {
                    none("can only get, create, update, patch, or delete a node lease".into())
                }
            }
            (true, "storage.k8s.io", "csinodes", "") => {
                if a.verb == "create" || a.name == node {
                    allow_it()
                } else {
                    none("can only access CSINode with the same name as the requesting node".into())
                }
            }
            (true, "", "nodes", "") if matches!(a.verb, "get" | "list" | "watch") => {
                if a.name == node {
                    allow_it()
                } else {
                    none(format!("node '{node}' cannot read all nodes, only its own Node object"))
                }
            }
            (true, "", "pods", "") if matches!(a.verb, "list" | "watch") => {
                if a.field_selector.split(',').any(|t| t == format!("spec.nodeName={node}")) {
                    allow_it()
                } else {
                    none(format!(
                        "can only list/watch pods with spec.nodeName field selector on node '{node}'"
                    ))
                }
            }
            (true, "", "pods", "") if a.verb == "get" => by_relation("pods"),
            _ if allow(&self.rules, a) => allow_it(),
            _ => none(String::new()),
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let decision = match attributes.user.node_name() {
            Some(node) => self.decide(node, attributes),
            None => Decision::NoOpinion { reason: String::new() },
        };
        Box::pin(std::future::ready(decision))
    }
}
