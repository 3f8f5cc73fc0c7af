//! The Node authorizer: a kubelet (`system:node:<name>` in `system:nodes`) reads what the pods on its node refer to,
//! and writes what is its own.

use super::graph::{Graph, Kind, OnNode, PersistentVolume};
use super::rules::allow;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::bootstrap;
use crate::user::User;
use api::rbac::v1::PolicyRule;
use apimachinery::fields::Selector;
use client::key::Resource;
use client::recent::Recent;
use client::source::{Feed, Query, Raw, Source};
use component::gates::FeatureGates;
use component::metrics::Registry;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the graph is made of: kind, group, version, resource.
const FED_BY: [(Kind, &str, &str, &str); 4] = [
    (Kind::Pod, "", "v1", "pods"),
    (Kind::Volume, "", "v1", "persistentvolumes"),
    (Kind::Attachment, "storage.k8s.io", "v1", "volumeattachments"),
    (Kind::ResourceSlice, "resource.k8s.io", "v1", "resourceslices"),
];
const POD_CERTIFICATES: (Kind, &str, &str, &str) =
    (Kind::PodCertificateRequest, "certificates.k8s.io", "v1beta1", "podcertificaterequests");

/// How long a question without a relationship waits for one.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);
const UNRELATED: &str = "no relationship found between node";

/// The Node authorizer.
pub struct NodeAuthorizer {
    graph: Arc<RwLock<Graph>>,
    /// How many feeds have brought their first snapshot.
    synced: watch::Sender<usize>,
    /// Counts what the feeds brought.
    changes: watch::Sender<u64>,
    /// How many feeds there are.
    feeds: usize,
    /// Whether pods' requests for certificates are served (feature PodCertificateRequest).
    pod_certificates: bool,
    /// What every node may do: the rules of `system:node`.
    rules: Vec<PolicyRule>,
}

impl std::fmt::Debug for NodeAuthorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeAuthorizer").finish_non_exhaustive()
    }
}

impl NodeAuthorizer {
    /// Starts to follow the source. Must be called within a tokio runtime.
    pub fn new(
        source: &Arc<dyn Source>,
        gates: &FeatureGates,
        metrics: &Registry,
        shutdown: &CancellationToken,
    ) -> Self {
        let pod_certificates = gates.enabled("PodCertificateRequest");
        let fed_by: Vec<_> = FED_BY.into_iter().chain(pod_certificates.then_some(POD_CERTIFICATES)).collect();
        let this = NodeAuthorizer {
            feeds: fed_by.len(),
            pod_certificates,
            graph: Arc::new(RwLock::new(Graph::measured(metrics))),
            synced: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            rules: bootstrap::rules_of("system:node", gates),
        };
        for (kind, group, version, resource) in fed_by {
            let query = Query::all(Resource::new(group, version, resource));
            let follow = follow(
                source.clone(),
                query,
                kind,
                this.graph.clone(),
                this.synced.clone(),
                this.changes.clone(),
            );
            let shutdown = shutdown.clone();
            tokio::spawn(async move { shutdown.run_until_cancelled(follow).await });
        }
        this
    }

    /// Waits until the graph is whole.
    pub async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.synced.subscribe().wait_for(|n| *n == self.feeds).await;
    }

    fn related(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Decision {
        if a.name.is_empty() {
            no("No Object name found")
        } else if self.graph.read().related(node, kind, a.namespace, a.name) {
            YES
        } else {
            Decision::NoOpinion { reason: format!("{UNRELATED} '{node}' and this object") }
        }
    }

    fn decide(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.is_resource {
            return self.by_rules(a);
        }
        match (a.group, a.resource) {
            ("", "secrets") => self.read(node, Kind::Secret, a),
            ("", "configmaps") => self.read(node, Kind::ConfigMap, a),
            ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "update" | "patch" => self.related(node, Kind::Claim, a),
                _ => no("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => self.get(node, Kind::Claim, a),
            ("", "persistentvolumes") => self.get(node, Kind::Volume, a),
            ("resource.k8s.io", "resourceclaims") => self.get(node, Kind::ResourceClaim, a),
            ("storage.k8s.io", "volumeattachments") => self.get(node, Kind::Attachment, a),
            ("", "serviceaccounts") => self.service_account(node, a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, a),
            ("", "nodes") => own_node(node, a),
            ("", "pods") => self.pod(node, a),
            ("certificates.k8s.io", "podcertificaterequests") if self.pod_certificates => {
                self.pod_certificate_request(node, a)
            }
            ("certificates.k8s.io", "podcertificaterequests") => no(""),
            _ => self.by_rules(a),
        }
    }

    fn by_rules(&self, a: &Attributes<'_>) -> Decision {
        if allow(&self.rules, a) { YES } else { no("") }
    }

    fn read(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "get" | "list" | "watch") {
            no("can only read resources of this type")
        } else if !a.subresource.is_empty() {
            no("cannot read subresource")
        } else if a.namespace.is_empty() {
            no("can only read namespaced object of this type")
        } else {
            self.related(node, kind, a)
        }
    }

    fn get(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Decision {
        if a.verb != "get" {
            no("can only get individual resources of this type")
        } else if !a.subresource.is_empty() {
            no("cannot get subresource")
        } else {
            self.related(node, kind, a)
        }
    }

    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb == "get" && a.subresource.is_empty() {
            self.read(node, Kind::ServiceAccount, a)
        } else if a.verb != "create" || a.name.is_empty() {
            no("can only create tokens for individual service accounts")
        } else if a.subresource != "token" {
            no("can only create token subresource of serviceaccount")
        } else {
            self.related(node, Kind::ServiceAccount, a)
        }
    }

    fn resource_slice(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            // NodeRestriction looks at the node it names.
            "create" => YES,
            "get" | "update" | "patch" | "delete" => self.related(node, Kind::ResourceSlice, a),
            "watch" | "list" | "deletecollection" if selects(a, "spec.nodeName", node) => YES,
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pod_certificate_request(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match a.verb {
            // NodeRestriction looks at the node and pod it names.
            "create" => YES,
            "get" => self.related(node, Kind::PodCertificateRequest, a),
            "list" | "watch" if selects(a, "spec.nodeName", node) => YES,
            "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => no(&format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        match (a.subresource, a.verb) {
            ("", "get") => self.get(node, Kind::Pod, a),
            ("", "list" | "watch") if selects(a, "spec.nodeName", node) => YES,
            ("", "list" | "watch") if !a.name.is_empty() => self.related(node, Kind::Pod, a),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            // NodeRestriction lets it create mirror pods, and write only to pods of its own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => YES,
            _ => no(""),
        }
    }
}

fn lease(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        no("can only get, create, update, patch, or delete a node lease")
    } else if a.namespace != "kube-node-lease" {
        no("can only access leases in the \"kube-node-lease\" system namespace")
    } else if a.verb != "create" && a.name != node {
        // The name of a new lease is not in the address: NodeRestriction looks at it.
        no("can only access node lease with the same name as the requesting node")
    } else {
        YES
    }
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        no("can only get, create, update, patch, or delete a CSINode")
    } else if !a.subresource.is_empty() {
        no("cannot authorize CSINode subresources")
    } else if a.verb != "create" && a.name != node {
        no("can only access CSINode with the same name as the requesting node")
    } else {
        YES
    }
}

fn own_node(node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => YES,
        ("", "get" | "list" | "watch") if a.name == node => YES,
        ("", "get" | "list" | "watch") => {
            let what = if a.name.is_empty() { "all nodes".to_owned() } else { format!("'{}'", a.name) };
            no(&format!("node '{node}' cannot read {what}, only its own Node object"))
        }
        _ => no(""),
    }
}

const YES: Decision = Decision::Allow { reason: String::new() };

fn no(reason: &str) -> Decision {
    Decision::NoOpinion { reason: reason.to_owned() }
}

/// Whether the request's field selector asks for exactly this value.
fn selects(a: &Attributes<'_>, field: &str, value: &str) -> bool {
    Selector::parse(a.field_selector).is_ok_and(|s| s.requires_exact_match(field) == Some(value))
}

/// Brings a feed into the graph for as long as there is one.
async fn follow(
    source: Arc<dyn Source>,
    query: Query,
    kind: Kind,
    graph: Arc<RwLock<Graph>>,
    synced: watch::Sender<usize>,
    changes: watch::Sender<u64>,
) {
    let recent = source.recent();
    let mut first = true;
    let heard = |first: &mut bool| {
        if std::mem::take(first) {
            synced.send_modify(|n| *n += 1);
        }
    };
    loop {
        let mut feed = source.open(query.clone());
        while let Some(feeds) = feed.next().await {
            let feeds = match feeds {
                Ok(feeds) => feeds,
                Err(error) => {
                    tracing::error!(resource = %query.resource, %error, "the node authorizer has no feed");
                    heard(&mut first);
                    return;
                }
            };
            for feed in feeds {
                let whole = matches!(feed, Feed::Snapshot { .. });
                apply(&mut graph.write(), recent.as_deref(), kind, feed);
                changes.send_modify(|n| *n += 1);
                if whole {
                    heard(&mut first);
                }
            }
        }
    }
}

fn apply(graph: &mut Graph, recent: Option<&Recent>, kind: Kind, feed: Feed) {
    match feed {
        Feed::Snapshot { objects, .. } => {
            let here: HashSet<String> = objects.iter().map(name).collect();
            for gone in graph.known(kind).into_iter().filter(|known| !here.contains(known)) {
                remove(graph, kind, &gone);
            }
            objects.iter().for_each(|raw| put(graph, recent, kind, raw));
        }
        Feed::Put(raw) => put(graph, recent, kind, &raw),
        Feed::Delete(raw) => remove(graph, kind, &name(&raw)),
        Feed::Progress(_) => {}
    }
}

fn name(raw: &Raw) -> String {
    if raw.key.namespace.is_empty() {
        raw.key.name.to_string()
    } else {
        format!("{}/{}", raw.key.namespace, raw.key.name)
    }
}

fn remove(graph: &mut Graph, kind: Kind, name: &str) {
    let start = Instant::now();
    match kind {
        Kind::Pod => graph.remove_pod(name),
        Kind::Volume => graph.remove_volume(name),
        _ => graph.remove_own(kind, name),
    }
    graph.changed(kind, false, start);
}

fn put(graph: &mut Graph, recent: Option<&Recent>, kind: Kind, raw: &Raw) {
    fn known<T>(raw: &Raw, read: Result<T, impl Display>) -> Option<T> {
        read.map_err(|error| tracing::error!(object = %raw.key, %error, "skipping an object")).ok()
    }
    fn read<T: DeserializeOwned>(raw: &Raw) -> Option<T> {
        known(raw, serde_json::from_slice(&raw.bytes))
    }
    let start = Instant::now();
    match kind {
        Kind::Pod => drop(known(raw, raw.shared(recent)).map(|pod| graph.put_pod(&pod))),
        Kind::Volume => drop(read::<PersistentVolume>(raw).map(|volume| graph.put_volume(&volume))),
        _ => {
            let Some(object) = read::<OnNode>(raw) else { return };
            graph.put_own(kind, &name(raw), object.spec.node_name.as_deref().unwrap_or_default());
        }
    }
    graph.changed(kind, true, start);
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let user = attributes.user;
        match user.node_name() {
            Some("") => {
                let decision = no(&format!("unknown node for user \"{}\"", user.name));
                Box::pin(std::future::ready(decision))
            }
            Some(node) => Box::pin(self.decide_in_time(node, attributes)),
            None => Box::pin(std::future::ready(no(""))),
        }
    }

    /// What a node may do depends on the objects: it cannot be listed.
    fn rules_for(&self, user: &User, _: &str) -> Rules {
        if user.node_name().is_none() {
            return Rules::default();
        }
        let errors = vec!["node authorizer does not support user rule resolution".into()];
        Rules { rules: Vec::new(), incomplete: true, errors }
    }
}

impl NodeAuthorizer {
    /// A node may hear of its pod before the graph does: an object without a relationship gets a moment to gain one.
    async fn decide_in_time(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        let mut changes = self.changes.subscribe();
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let decision = self.decide(node, attributes);
            let unrelated =
                matches!(&decision, Decision::NoOpinion { reason } if reason.starts_with(UNRELATED));
            if !unrelated || tokio::time::timeout_at(end, changes.changed()).await.is_err() {
                return decision;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Features;
    use crate::user::NODES;
    use apimachinery::json;
    use apimachinery::value::Value;
    use client::key::ObjectKey;

    fn raw(value: &Value) -> Raw {
        let text = |key: &str| value["metadata"][key].as_str().unwrap_or_default();
        Raw {
            key: ObjectKey::new(text("namespace"), text("name")),
            revision: 1,
            bytes: value.to_string().into(),
        }
    }

    fn pod(name: &str, node: &str, spec: Value) -> Raw {
        let mut pod = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        pod["spec"]["nodeName"] = node.into();
        raw(&pod)
    }

    fn authorizer() -> NodeAuthorizer {
        let graph = Graph::default();
        NodeAuthorizer {
            graph: Arc::new(RwLock::new(graph)),
            synced: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            feeds: 0,
            pod_certificates: true,
            rules: bootstrap::rules_of("system:node", &Features::default().gates),
        }
    }

    /// `verb group/resource[/subresource] namespace/name [selector]`, and what is said: `yes`, or the reason.
    fn check(authorizer: &NodeAuthorizer, request: &str, expected: &str) {
        let words: Vec<&str> = request.split(' ').collect();
        let (group, resource) = words[1].split_once('/').unwrap_or(("", words[1]));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (namespace, name) = words.get(2).and_then(|w| w.split_once('/')).unwrap_or_default();
        let user = User::new("system:node:a", &[NODES]);
        let decision = authorizer.decide(
            "a",
            &Attributes {
                subresource,
                namespace,
                name,
                field_selector: words.get(3).copied().unwrap_or_default(),
                ..Attributes::about(&user, words[0], (group, "v1", resource))
            },
        );
        let said = match decision {
            Decision::Allow { .. } => "yes".to_owned(),
            Decision::Deny { reason } | Decision::NoOpinion { reason } | Decision::Error { reason, .. } => {
                reason
            }
        };
        assert_eq!(said, expected, "{request}");
    }

    const STRANGE: &str = "no relationship found between node 'a' and this object";

    #[test]
    fn a_node_reads_what_its_pods_refer_to() {
        let authorizer = authorizer();
        let put = |kind, raw: Raw| apply(&mut authorizer.graph.write(), None, kind, Feed::Put(raw));
        let mine = pod(
            "mine",
            "a",
            json!({
                "serviceAccountName": "robot",
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"envFrom": [{"configMapRef": {"name": "env"}}]}],
                "volumes": [
                    {"name": "v", "secret": {"secretName": "mounted"}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "e", "ephemeral": {}},
                    {"name": "p", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
                ],
            }),
        );
        put(Kind::Pod, mine.clone());
        let claiming = json!({
            "metadata": {"name": "claiming", "namespace": "ns", "uid": "claiming"},
            "spec": {"nodeName": "a", "resourceClaims": [{"name": "n", "resourceClaimName": "named"}]},
            "status": {"resourceClaimStatuses": [{"name": "t", "resourceClaimName": "made"}],
                "extendedResourceClaimStatus": {"resourceClaimName": "extended", "requestMappings": []}},
        });
        put(Kind::Pod, raw(&claiming));
        put(
            Kind::Pod,
            pod("other", "b", json!({"volumes": [{"name": "v", "secret": {"secretName": "theirs"}}]})),
        );
        put(
            Kind::Volume,
            raw(&json!({"metadata": {"name": "pv"}, "spec": {
                "claimRef": {"namespace": "ns", "name": "claim"},
                "csi": {"nodeStageSecretRef": {"namespace": "vault", "name": "key"}, "controllerExpandSecretRef": {"namespace": "vault", "name": "root"}},
            }})),
        );
        put(Kind::Attachment, raw(&json!({"metadata": {"name": "va"}, "spec": {"nodeName": "a"}})));
        let request = json!({"metadata": {"namespace": "ns", "name": "pcr"}, "spec": {"nodeName": "a"}});
        put(Kind::PodCertificateRequest, raw(&request));
        for (request, said) in [
            ("get /secrets ns/mounted", "yes"),
            ("watch /secrets ns/pull", "yes"),
            ("get /secrets ns/theirs", STRANGE),
            ("get /secrets vault/key", "yes"),
            ("get /secrets vault/root", STRANGE),
            ("update /secrets ns/mounted", "can only read resources of this type"),
            ("list /secrets ns/", "No Object name found"),
            ("get /configmaps ns/env", "yes"),
            ("get /configmaps ns/kube-root-ca.crt", "yes"),
            ("get /configmaps other/env", STRANGE),
            ("get /persistentvolumeclaims ns/claim", "yes"),
            ("get /persistentvolumeclaims ns/mine-e", "yes"),
            ("get resource.k8s.io/resourceclaims ns/named", "yes"),
            ("get resource.k8s.io/resourceclaims ns/made", "yes"),
            ("get resource.k8s.io/resourceclaims ns/extended", "yes"),
            ("get resource.k8s.io/resourceclaims ns/another", STRANGE),
            ("patch /persistentvolumeclaims/status ns/claim", "yes"),
            ("list /persistentvolumeclaims ns/claim", "can only get individual resources of this type"),
            ("get /persistentvolumes /pv", "yes"),
            ("get storage.k8s.io/volumeattachments /va", "yes"),
            ("create /serviceaccounts/token ns/robot", "yes"),
            ("create /serviceaccounts/token ns/default", STRANGE),
            ("get /pods ns/mine", "yes"),
            ("get /pods ns/other", STRANGE),
            ("list /pods / spec.nodeName=a", "yes"),
            ("list /pods / spec.nodeName!=a", "can only list/watch pods with spec.nodeName field selector"),
            ("update coordination.k8s.io/leases kube-node-lease/a", "yes"),
            (
                "update coordination.k8s.io/leases kube-node-lease/b",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "update coordination.k8s.io/leases ns/a",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            ("get /nodes /a", "yes"),
            ("get /nodes /b", "node 'a' cannot read 'b', only its own Node object"),
            ("list /nodes /", "node 'a' cannot read all nodes, only its own Node object"),
            ("patch /nodes/status /b", "yes"),
            ("delete /nodes /a", ""),
            ("get certificates.k8s.io/podcertificaterequests ns/pcr", "yes"),
            ("get certificates.k8s.io/podcertificaterequests other/pcr", STRANGE),
            ("create certificates.k8s.io/podcertificaterequests ns/", "yes"),
            ("list certificates.k8s.io/podcertificaterequests / spec.nodeName=a", "yes"),
            (
                "list certificates.k8s.io/podcertificaterequests /",
                "can only list/watch podcertificaterequests with nodeName field selector",
            ),
            (
                "delete certificates.k8s.io/podcertificaterequests ns/pcr",
                "nodes may not delete podcertificaterequests",
            ),
            (
                "get certificates.k8s.io/podcertificaterequests/status ns/pcr",
                "nodes may not access the status subresource of PodCertificateRequests",
            ),
            ("list /services /", "yes"),
            ("list apps/deployments /", ""),
        ] {
            check(&authorizer, request, said);
        }
        apply(&mut authorizer.graph.write(), None, Kind::Pod, Feed::Delete(mine));
        for request in [
            "get /secrets ns/mounted",
            "get /secrets vault/key",
            "get /persistentvolumes /pv",
            "get /pods ns/mine",
        ] {
            check(&authorizer, request, STRANGE);
        }
    }

    #[test]
    fn shared_references_are_counted_and_snapshots_forget() {
        let authorizer = authorizer();
        let uses = |name: &str| pod(name, "a", json!({"imagePullSecrets": [{"name": "s"}]}));
        let feed = |feed| apply(&mut authorizer.graph.write(), None, Kind::Pod, feed);
        feed(Feed::Snapshot { objects: vec![uses("one"), uses("two")], revision: 1 });
        feed(Feed::Put(uses("two")));
        feed(Feed::Delete(uses("one")));
        check(&authorizer, "get /secrets ns/s", "yes");
        feed(Feed::Snapshot { objects: vec![], revision: 2 });
        check(&authorizer, "get /secrets ns/s", STRANGE);
    }
}
