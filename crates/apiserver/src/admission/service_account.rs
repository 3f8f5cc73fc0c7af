//! ServiceAccount: every pod runs as one, and gets its token, the cluster's CA and its namespace mounted.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) struct ServiceAccount(pub Arc<Objects>);

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

impl Immediate for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let creates = a.operation == Operation::Create;
        let Some(pod) = a.written_mut("", "pods").filter(|_| creates) else { return Ok(()) };
        let mirror = pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some();
        if mirror {
            let wrong = !pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty();
            return if wrong {
                Err(a.forbidden("a mirror pod may not reference service accounts"))
            } else {
                Ok(())
            };
        }
        let mut name = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            name = "default".into();
            pod["spec"]["serviceAccountName"] = name.as_str().into();
        }
        pod["spec"]["serviceAccount"] = name.as_str().into();
        let namespace = a.namespace.to_owned();
        let account = match self.0.pending(&namespace, &name)? {
            Some(account) => account,
            None => {
                let why = format!(
                    "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
                );
                return Err(a.forbidden(why));
            }
        };
        let Some(pod) = a.object.as_deref_mut() else { return Ok(()) };
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
        Ok(())
    }
}
