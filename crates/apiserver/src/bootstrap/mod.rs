//! What a new cluster has: namespaces, roles and bindings, priority classes, flow schemas, the `kubernetes` Service. Written
//! at every start: what is missing is created, what was taken from roles and bindings is put back ([`reconcile`]).

mod gated;
#[cfg(test)]
mod golden;
pub mod join;
pub mod living;
mod policy;
mod reconcile;

use crate::flowcontrol;
use crate::object;
use crate::registry::{Registry, UpdateOptions, WriteContext};
use crate::resources::Served;
use crate::services::Ranges;
use crate::user::{MASTERS, User};
use api::rbac::v1::PolicyRule;
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::status::Status;
use apimachinery::value::Value;
use component::gates::FeatureGates;
use futures::future::BoxFuture;
use policy::{Binding, Role, Rule};
use reconcile::Outcome;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What the `kubernetes` Service points to.
#[derive(Debug, Clone)]
pub struct Config {
    pub ranges: Ranges,
    /// This server's.
    pub advertise_address: IpAddr,
    /// Those of all servers that live.
    pub addresses: Vec<IpAddr>,
    pub secure_port: u16,
    /// PEM of the client authorities, for aggregated API servers.
    pub client_ca: String,
    pub request_header_ca: String,
    /// What proxies may be called, and in which headers they assert users.
    pub request_header_names: Vec<String>,
    pub request_headers: crate::authn::request_header::Headers,
    /// The cluster's DNS, if the nodes serve one.
    pub dns: Option<Dns>,
    /// Some roles are there with their gates only.
    pub gates: FeatureGates,
    /// For nodes that join, if they may.
    pub join: Option<join::Join>,
}

/// The Service in front of the nodes' DNS servers.
#[derive(Debug, Clone)]
pub struct Dns {
    pub service_ip: IpAddr,
    /// Where the nodes listen.
    pub port: u16,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(|w| if w == "core" { String::new() } else { w.to_owned() }).collect()
}

fn policy_rule(rule: &Rule) -> PolicyRule {
    PolicyRule {
        verbs: words(rule.verbs),
        api_groups: words(rule.groups),
        resources: words(rule.resources),
        resource_names: words(rule.names),
        non_resource_urls: words(rule.urls),
    }
}

/// The rules of a bootstrap cluster role.
pub fn rules_of(name: &str, gates: &FeatureGates) -> Vec<PolicyRule> {
    let found = policy::CLUSTER_ROLES.iter().find(|r| r.name == name);
    let rules = found.map(|r| r.rules).unwrap_or_default();
    rules.iter().chain(gated::rules_of(name, gates)).map(policy_rule).collect()
}

/// The rules of a role that takes in those that aggregate to it.
fn aggregated(name: &str) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for part in policy::CLUSTER_ROLES.iter().filter(|r| r.aggregate_to == name) {
        let own = if part.aggregates {
            aggregated(part.name)
        } else {
            part.rules.iter().map(policy_rule).collect()
        };
        for rule in own {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

fn metadata(namespace: &str, name: &str, aggregate_to: &str) -> Value {
    let mut meta = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        meta["namespace"] = namespace.into();
    }
    if !aggregate_to.is_empty() {
        meta["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{aggregate_to}")] = "true".into();
    }
    meta
}

fn role(role: &Role) -> Value {
    with_rules(role, std::iter::empty())
}

/// The role, with rules beyond its own.
fn with_rules(role: &Role, more: impl Iterator<Item = &'static Rule>) -> Value {
    let mut value = json!({"metadata": metadata(role.namespace, role.name, role.aggregate_to)});
    if role.aggregates {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{}", role.name);
        value["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        value["rules"] = json!(aggregated(role.name));
    } else {
        value["rules"] = role.rules.iter().chain(more).map(|r| json!(policy_rule(r))).collect();
    }
    value
}

fn binding(binding: &Binding) -> Value {
    let subjects: Vec<Value> = binding
        .subjects
        .split_whitespace()
        .map(|s| match s.split_once(':') {
            Some(("user", name)) => {
                json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
            }
            Some(("group", name)) => {
                json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name})
            }
            Some((_, account)) => {
                let (namespace, name) = account.split_once('/').unwrap_or(("", account));
                json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
            }
            None => Value::Null,
        })
        .collect();
    json!({
        "metadata": metadata(binding.namespace, binding.name, ""),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": binding.role_kind, "name": binding.role},
        "subjects": subjects,
    })
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// What kubeadm adds: administrators by group, and the API server's own rights on kubelets.
const ADMINS: &[Binding] = &[
    Binding {
        namespace: "",
        name: "kubeadm:cluster-admins",
        role_kind: "ClusterRole",
        role: "cluster-admin",
        subjects: "group:kubeadm:cluster-admins",
    },
    Binding {
        namespace: "",
        name: "kubeadm:apiserver-kubelet-client",
        role_kind: "ClusterRole",
        role: "system:kubelet-api-admin",
        subjects: "user:kube-apiserver-kubelet-client",
    },
];

const LEGACY_TOKENS: &str = "kube-apiserver-legacy-service-account-token-tracking";

/// Everything, as (group, resource, object).
fn objects(config: &Config, today: &str) -> Vec<(&'static str, &'static str, Value)> {
    let mut all = Vec::new();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        all.push(("", "namespaces", json!({"metadata": {"name": name}})));
    }
    let gates = &config.gates;
    let cluster_roles = policy::CLUSTER_ROLES.iter().chain(policy::CONTROLLER_ROLES);
    let cluster_roles = cluster_roles.chain(gated::roles(gates));
    all.extend(cluster_roles.map(|r| (RBAC, "clusterroles", with_rules(r, gated::rules_of(r.name, gates)))));
    all.extend(policy::NAMESPACE_ROLES.iter().map(|r| (RBAC, "roles", role(r))));
    let bindings = policy::CLUSTER_ROLE_BINDINGS.iter().chain(policy::CONTROLLER_ROLE_BINDINGS).chain(ADMINS);
    let bindings = bindings.chain(gated::bindings(gates));
    all.extend(bindings.map(|b| (RBAC, "clusterrolebindings", binding(b))));
    all.extend(policy::NAMESPACE_ROLE_BINDINGS.iter().map(|b| (RBAC, "rolebindings", binding(b))));
    for (name, value, description) in [
        (
            "system-node-critical",
            2_000_001_000_i64,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority"});
        all.push(("scheduling.k8s.io", "priorityclasses", class));
    }
    all.extend(flowcontrol::defaults::objects());
    all.push((
        "networking.k8s.io",
        "servicecidrs",
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": config.ranges.cidrs()}}),
    ));
    // Since when the use of tokens in secrets is noted: before that, nobody knows which are used.
    all.push((
        "",
        "configmaps",
        json!({
            "metadata": {"name": LEGACY_TOKENS, "namespace": "kube-system"},
            "data": {"since": today},
        }),
    ));
    let mut authentication = json!({ "client-ca-file": config.client_ca });
    // A server that trusts no proxy says nothing of proxies.
    if let (false, Value::Object(data)) = (config.request_header_ca.is_empty(), &mut authentication) {
        let headers = &config.request_headers;
        data.insert("requestheader-client-ca-file", config.request_header_ca.as_str().into());
        data.extend(
            [
                ("requestheader-allowed-names", &config.request_header_names),
                ("requestheader-username-headers", &headers.name),
                ("requestheader-uid-headers", &headers.uid),
                ("requestheader-group-headers", &headers.group),
                ("requestheader-extra-headers-prefix", &headers.extra_prefix),
            ]
            .map(|(name, list)| (name.to_owned(), json!(list).to_string().into())),
        );
    }
    let metadata = json!({"name": "extension-apiserver-authentication", "namespace": "kube-system"});
    all.push(("", "configmaps", json!({ "metadata": metadata, "data": authentication })));
    let service_ip = config.ranges.first_address();
    let mut port = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.secure_port});
    if let Some(number) = config.ranges.kubernetes_port {
        port["nodePort"] = number.into();
    }
    all.push(("", "services", json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": if config.ranges.kubernetes_port.is_some() { "NodePort" } else { "ClusterIP" },
            "clusterIP": service_ip.to_string(), "clusterIPs": [service_ip.to_string()],
            "ipFamilies": [crate::services::family(service_ip)], "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None", "ports": [port],
        },
    })));
    // No pod reaches a loopback address, and Endpoints may not have one.
    if !config.advertise_address.is_loopback() && !config.addresses.is_empty() {
        all.extend(kubernetes_endpoints(config));
    }
    all.extend(config.dns.iter().flat_map(dns));
    all.extend(config.join.iter().flat_map(join::objects));
    all
}

/// Where the `kubernetes` Service leads: to every server that lives.
fn kubernetes_endpoints(config: &Config) -> [(&'static str, &'static str, Value); 2] {
    let ips = config.addresses.iter().map(IpAddr::to_string);
    let addresses: Vec<Value> = ips.clone().map(|ip| json!({ "ip": ip })).collect();
    let endpoints: Vec<Value> =
        ips.map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true } })).collect();
    let ports = json!([{ "name": "https", "port": config.secure_port, "protocol": "TCP" }]);
    [
        (
            "",
            "endpoints",
            json!({
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                "subsets": [{ "addresses": addresses, "ports": ports }],
            }),
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": crate::services::family(config.advertise_address),
                "endpoints": endpoints,
                "ports": ports,
            }),
        ),
    ]
}

/// The DNS add-on as kubeadm sets it up, without pods of its own: account, rights, and the Service `kube-dns`.
fn dns(dns: &Dns) -> Vec<(&'static str, &'static str, Value)> {
    let read = |group: &str, resources: Value| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let ip = dns.service_ip.to_string();
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol, "targetPort": dns.port});
    let bootstrap = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    vec![
        ("", "serviceaccounts", json!({"metadata": {"name": "coredns", "namespace": "kube-system"}})),
        (
            RBAC,
            "clusterroles",
            json!({
                "metadata": {"name": "system:coredns", "labels": bootstrap},
                "rules": [
                    read("", json!(["endpoints", "services", "pods", "namespaces"])),
                    read("discovery.k8s.io", json!(["endpointslices"])),
                ],
            }),
        ),
        (
            RBAC,
            "clusterrolebindings",
            json!({
                "metadata": {"name": "system:coredns", "labels": bootstrap},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "system:coredns"},
                "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
            }),
        ),
        (
            "",
            "services",
            json!({
                "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
                    "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
                }},
                "spec": {
                    "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                    "trafficDistribution": "PreferSameNode",
                    "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
                },
            }),
        ),
    ]
}

/// The newest revision of what stands here, by resource: who has reached it knows all of it.
#[derive(Debug, Default)]
pub struct Revisions(HashMap<(&'static str, &'static str), u64>);

impl Revisions {
    /// That of a resource; zero when there is nothing of it.
    pub fn of(&self, group: &str, resource: &str) -> u64 {
        let found = self.0.iter().find(|((g, r), _)| *g == group && *r == resource);
        found.map_or(0, |(_, revision)| *revision)
    }
}

/// Writes everything; together, so that a few syncs of the store serve all.
pub async fn run(registry: &Registry, config: &Config) -> Result<Revisions, Status> {
    let user = User::new("system:apiserver", &[MASTERS]);
    let now = registry.clock.now().to_string();
    let all = objects(config, now.get(..10).unwrap_or_default());
    // Namespaces and ranges first: what is in them comes after.
    let (first, rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, resource, _)| matches!(*resource, "namespaces" | "servicecidrs"));
    let mut revisions = Revisions::default();
    for part in [first, rest] {
        write(registry, &user, part, &mut revisions).await?;
    }
    Ok(revisions)
}

type Wanted = (&'static str, &'static str, Value);

async fn write(
    registry: &Registry,
    user: &User,
    objects: Vec<Wanted>,
    revisions: &mut Revisions,
) -> Result<(), Status> {
    let writes = objects.into_iter().map(|(group, resource, value)| async move {
        ((group, resource), ensure(registry, user, group, resource, value).await)
    });
    for (of, result) in futures::future::join_all(writes).await {
        let revision = match result {
            Ok(revision) => revision,
            // Admission is configured, and may refuse what is wanted here; that keeps no server from serving.
            Err(status) if status.is_forbidden() => {
                tracing::warn!(resource = of.1, %status, "what every cluster has is not let in");
                continue;
            }
            Err(status) => return Err(status),
        };
        let newest = revisions.0.entry(of).or_default();
        *newest = revision.max(*newest);
    }
    Ok(())
}

/// Puts objects right that every cluster has.
pub(crate) async fn keep(registry: &Registry, objects: Vec<Wanted>) -> Result<(), Status> {
    let user = User::new("system:apiserver", &[MASTERS]);
    write(registry, &user, objects, &mut Revisions::default()).await
}

/// Writes one object unless it is there as it should be; its revision.
async fn ensure(
    registry: &Registry,
    user: &User,
    group: &str,
    resource: &str,
    wanted: Value,
) -> Result<u64, Status> {
    let served: Arc<Served> =
        registry.resources.preferred(group, resource).ok_or_else(Status::path_not_found)?;
    let (namespace, name) = (object::namespace(&wanted).to_owned(), object::name(&wanted).to_owned());
    let context = WriteContext::own(user, &served, &namespace, "");
    match registry.read(&served, &namespace, &name).await {
        Err(status) if status.is_not_found() => {
            let value = registry.normalise(&served, wanted)?;
            match registry.create(&context, value).await {
                Ok(stored) => Ok(stored.revision),
                // Another server of this cluster was faster.
                Err(status) if status.is_already_exists() => {
                    let there = registry.latest(&served, &namespace, &name).await;
                    there.map(|entry| entry.mod_revision.0)
                }
                Err(status) => Err(status),
            }
        }
        Err(status) => Err(status),
        Ok(current) => {
            let outcome = match (group, resource) {
                (RBAC, "clusterroles" | "roles") => reconcile::role(&current.value, &wanted),
                (RBAC, _) => reconcile::binding(&current.value, &wanted),
                _ => Outcome::Update(renewed(current.value.clone(), &wanted, resource)),
            };
            let right = match outcome {
                Outcome::Keep => return Ok(current.revision),
                Outcome::Update(right) => registry.normalise(&served, right)?,
                Outcome::Recreate => {
                    let value = registry.normalise(&served, wanted)?;
                    let uid = Some(object::uid(&current.value).to_owned());
                    let preconditions = Some(Preconditions { uid, ..Default::default() });
                    let options = DeleteOptions { preconditions, ..Default::default() };
                    match registry.delete(&context, &name, &options).await {
                        Ok(_) => {}
                        Err(status) if status.is_not_found() => {}
                        Err(status) => return Err(status),
                    }
                    return registry.create(&context, value).await.map(|stored| stored.revision);
                }
            };
            if right == current.value {
                return Ok(current.revision);
            }
            let change = move |_: Option<&Value>| {
                let value = right.clone();
                Box::pin(std::future::ready(Ok(value))) as BoxFuture<'_, _>
            };
            registry
                .update(&context, &name, UpdateOptions::default(), &change)
                .await
                .map(|u| u.stored.revision)
        }
    }
}

/// What is wanted, put into what is there; what people added stays.
fn renewed(mut current: Value, wanted: &Value, resource: &str) -> Value {
    match resource {
        "flowschemas" | "prioritylevelconfigurations" => {
            return flowcontrol::controller::revise(current, wanted);
        }
        "endpoints" => current["subsets"] = wanted["subsets"].clone(),
        "endpointslices" => {
            current["endpoints"] = wanted["endpoints"].clone();
            current["ports"] = wanted["ports"].clone();
        }
        "configmaps" if object::name(wanted) == LEGACY_TOKENS => {}
        // The signatures are the signer's.
        "configmaps" if object::name(wanted) == join::CLUSTER_INFO => {
            current["data"][join::KUBECONFIG] = wanted["data"][join::KUBECONFIG].clone();
        }
        "configmaps" => current["data"] = wanted["data"].clone(),
        "services" => current["spec"]["ports"] = wanted["spec"]["ports"].clone(),
        _ => {}
    }
    current
}
