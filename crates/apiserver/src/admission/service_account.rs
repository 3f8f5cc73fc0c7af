//! ServiceAccount: every pod runs as one, and gets its token, the cluster's CA and its namespace mounted. An account may keep its
//! pods to the Secrets that it lists.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When, pod_secrets};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::sync::Arc;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) struct ServiceAccount(pub Arc<Objects>);

impl Immediate for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn when(&self) -> When {
        When::both(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let (creates, namespace) = (a.operation == Operation::Create, a.namespace.to_owned());
        let Some(pod) = a.written_mut("", "pods").filter(|_| creates) else { return Ok(()) };
        if !is_mirror(pod) {
            let name = account_name(pod);
            let name = if name.is_empty() { "default".to_owned() } else { name.to_owned() };
            pod["spec"]["serviceAccountName"] = name.as_str().into();
            pod["spec"]["serviceAccount"] = name.as_str().into();
            let account = self.account(a, &namespace, &name)?;
            if let Some(pod) = a.object.as_deref_mut() {
                equip(pod, &account);
            }
        }
        self.validate(a)
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = a.object.as_deref().filter(|_| a.is("", "pods")) else { return Ok(()) };
        match (a.operation, a.subresource) {
            (Operation::Create, "") if is_mirror(pod) => {
                mirror_refusal(&pod["spec"]).map_or(Ok(()), |why| Err(a.forbidden(why)))
            }
            (Operation::Create, "") => {
                let account = self.account_of(a, pod)?;
                let unlisted = || pod_secrets::unlisted(&account, &pod["spec"]);
                let refused = pod_secrets::are_limited(&account).then(unlisted).flatten();
                refused.map_or(Ok(()), |why| Err(a.forbidden(why)))
            }
            (Operation::Update, "ephemeralcontainers") => {
                let account = self.account_of(a, pod)?;
                let unlisted = || pod_secrets::unlisted_ephemeral(&account, &pod["spec"]);
                let refused = pod_secrets::are_limited(&account).then(unlisted).flatten();
                // Upstream answers so, as if it were its own mistake.
                refused.map_or(Ok(()), |why| Err(Status::plain_error(why)))
            }
            _ => Ok(()),
        }
    }
}

impl ServiceAccount {
    fn account(&self, a: &Attributes<'_>, namespace: &str, name: &str) -> Result<Arc<Value>, Status> {
        self.0.pending(namespace, name)?.ok_or_else(|| {
            a.forbidden(format!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
            ))
        })
    }

    /// The account of a pod, which must have one.
    fn account_of(&self, a: &Attributes<'_>, pod: &Value) -> Result<Arc<Value>, Status> {
        match account_name(pod) {
            "" => Err(a.forbidden(format!(
                "no service account specified for pod {}/{}",
                a.namespace,
                crate::object::name(pod)
            ))),
            name => self.account(a, a.namespace, name),
        }
    }
}

fn account_name(pod: &Value) -> &str {
    pod["spec"]["serviceAccountName"].as_str().unwrap_or_default()
}

/// Whether a pod stands for one that a kubelet runs by itself. It stays as it is.
fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}

/// What a mirror pod may not name: its kubelet would read it without having been given it.
fn mirror_refusal(spec: &Value) -> Option<&'static str> {
    if !spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    if pod_secrets::any(spec) {
        return Some("a mirror pod may not reference secrets");
    }
    let token = pod_secrets::is_projected(spec, "serviceAccountToken");
    token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

/// Gives a pod what its account has for it: a token, and the Secrets to pull images with.
fn equip(pod: &mut Value, account: &Value) {
    let wants = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or(account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if wants {
        mount_token(pod);
    }
    let secrets = &account["imagePullSecrets"];
    if pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty) && secrets.is_array() {
        pod["spec"]["imagePullSecrets"] = secrets.clone();
    }
}

/// Adds the projected volume, and mounts it wherever nothing is mounted at its path yet.
fn mount_token(pod: &mut Value) {
    let existing = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let own = existing
        .filter_map(|v| v["name"].as_str())
        .find(|n| n.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let name = own.clone().unwrap_or_else(|| apimachinery::rand_name::generate_name("kube-api-access-"));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array();
            if mounts.is_some_and(|m| m.iter().any(|m| m["mountPath"] == TOKEN_PATH)) {
                continue;
            }
            used = true;
            let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH});
            match container["volumeMounts"].as_array_mut() {
                Some(mounts) => mounts.push(mount),
                None => container["volumeMounts"] = Value::Array(vec![mount]),
            }
        }
    }
    if !used || own.is_some() {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    match pod["spec"]["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(volume),
        None => pod["spec"]["volumes"] = Value::Array(vec![volume]),
    }
}
