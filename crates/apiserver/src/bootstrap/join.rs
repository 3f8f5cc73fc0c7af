//! What a node finds that joins: who the cluster is, what all nodes agree on, and the rights to ask for certificates and to
//! do a node's work. Names are kubeadm's where kubeadm has such an object.

use super::policy::{Binding, Role, binding_in, named, role, rule, within};
use super::{RBAC, binding, policy};
use apimachinery::json;
use apimachinery::value::Value;
use std::collections::BTreeMap;

/// The ConfigMap of `kube-public` that the signer of bootstrap tokens signs.
pub(super) const CLUSTER_INFO: &str = "cluster-info";
pub(super) const KUBECONFIG: &str = "kubeconfig";
/// The ConfigMap of `kube-system` with what all nodes agree on.
pub const SETTINGS: &str = "tiphys-cluster";
/// The group of tokens that nodes join with, as kubeadm calls it.
pub const TOKEN_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// What who joins must know.
#[derive(Debug, Clone)]
pub struct Join {
    /// A kubeconfig without a user: where the cluster is, and its authority.
    pub kubeconfig: String,
    /// What all nodes agree on, by the names of the server's flags.
    pub settings: BTreeMap<String, String>,
}

const CLUSTER_ROLES: &[Role] = &[
    role("kubeadm:get-nodes", &[rule("get", "core", "nodes")]),
    role(
        "tiphys:node-serving",
        &[rule("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeserver")],
    ),
    role(
        "tiphys:approver-of-serving",
        &[
            rule("get", "core", "nodes"),
            named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving"),
        ],
    ),
];

const ROLES: &[Role] = &[
    within(
        "kube-public",
        "kubeadm:bootstrap-signer-clusterinfo",
        &[named("get", "core", "configmaps", CLUSTER_INFO)],
    ),
    within("kube-system", "tiphys:cluster-settings", &[named("get", "core", "configmaps", SETTINGS)]),
];

const TOKENS: &str = "group:system:bootstrappers:kubeadm:default-node-token";
const NODES: &str = "group:system:nodes";

const CLUSTER_ROLE_BINDINGS: &[Binding] = &[
    policy::binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", TOKENS),
    policy::binding("kubeadm:get-nodes", "kubeadm:get-nodes", TOKENS),
    policy::binding(
        "kubeadm:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        TOKENS,
    ),
    policy::binding(
        "kubeadm:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        NODES,
    ),
    policy::binding("tiphys:node-autoapprove-serving", "tiphys:node-serving", NODES),
    policy::binding(
        "tiphys:approver-of-serving",
        "tiphys:approver-of-serving",
        "sa:kube-system/certificate-controller",
    ),
    // A node is proxy and DNS server, too.
    policy::binding("tiphys:node-proxier", "system:node-proxier", NODES),
    policy::binding("tiphys:node-dns", "system:coredns", NODES),
];

const ROLE_BINDINGS: &[Binding] = &[
    binding_in(
        "kube-public",
        "kubeadm:bootstrap-signer-clusterinfo",
        "Role",
        "kubeadm:bootstrap-signer-clusterinfo",
        "user:system:anonymous",
    ),
    binding_in(
        "kube-system",
        "tiphys:cluster-settings",
        "Role",
        "tiphys:cluster-settings",
        "group:system:nodes group:system:bootstrappers:kubeadm:default-node-token",
    ),
];

/// All of it, as (group, resource, object).
pub(super) fn objects(join: &Join) -> Vec<(&'static str, &'static str, Value)> {
    let map = |namespace: &str, name: &str, data: Value| {
        ("", "configmaps", json!({"metadata": {"name": name, "namespace": namespace}, "data": data}))
    };
    let mut all = vec![
        map("kube-public", CLUSTER_INFO, json!({ KUBECONFIG: join.kubeconfig })),
        map("kube-system", SETTINGS, json!(join.settings)),
    ];
    all.extend(CLUSTER_ROLES.iter().map(|r| (RBAC, "clusterroles", super::role(r))));
    all.extend(ROLES.iter().map(|r| (RBAC, "roles", super::role(r))));
    all.extend(CLUSTER_ROLE_BINDINGS.iter().map(|b| (RBAC, "clusterrolebindings", binding(b))));
    all.extend(ROLE_BINDINGS.iter().map(|b| (RBAC, "rolebindings", binding(b))));
    all
}
