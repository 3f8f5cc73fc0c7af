//! What a kubelet may do to its own node object, its slices, and its requests for certificates.

use super::{labels, refuse};
use crate::admission::{Attributes, Operation};
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::value::{Key, Value};
use base64::Engine as _;

pub(super) fn check(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let requested = super::name(a);
    if requested != node {
        let why = format!("node {} is not allowed to modify node {}", quote(node), quote(requested));
        return Err(refuse(a, why));
    }
    let Some(new) = a.object.as_deref() else { return Ok(()) };
    let refused = |why: String| Err(refuse(a, why));
    let members = |o: &Value| o["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let source = |o: &Value| o["spec"]["configSource"].clone();
    let node_name = quote(node);
    match (a.operation, a.old) {
        (Operation::Create, _) => {
            if !source(new).is_null() {
                return refused(format!(
                    "node {node_name} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let now = members(new);
            let modified = now.keys().map(Key::as_str);
            labels::refusal(modified, node, a.operation).map_or(Ok(()), refused)
        }
        (Operation::Update, Some(old)) => {
            if !source(new).is_null() && source(new) != source(old) {
                return refused(format!(
                    "node {node_name} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if !same(&new["spec"]["taints"], &old["spec"]["taints"]) {
                return refused(format!("node {node_name} is not allowed to modify taints"));
            }
            if !same(&new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
                return refused(format!("node {node_name} is not allowed to modify ownerReferences"));
            }
            let (now, was) = (members(new), members(old));
            let changed = now.iter().filter(|(k, v)| was.get(k) != Some(v)).map(|(k, _)| k.as_str());
            let gone = was.keys().filter(|k| !now.contains_key(k)).map(Key::as_str);
            labels::refusal(changed.chain(gone), node, a.operation).map_or(Ok(()), refused)
        }
        _ => Ok(()),
    }
}

/// Whether two lists are the same; none is an empty one.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    };
    a == b || empty(a) && empty(b)
}

/// New slices, and each one that a collection's deletion would remove; others the Node authorizer knows.
pub(super) fn slice(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let (object, verb) = match a.operation {
        Operation::Create => (a.object.as_deref(), "create"),
        Operation::Delete => (a.old, "delete"),
        _ => return Ok(()),
    };
    if object.is_some_and(|slice| slice["spec"]["nodeName"] == node) {
        return Ok(());
    }
    Err(refuse(a, format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")))
}

/// A kubelet asks for certificates in its own name.
pub(super) fn signing_request(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let Some(request) = a.object.as_deref().filter(|_| a.operation == Operation::Create) else {
        return Ok(());
    };
    let signers = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
    if !signers.contains(&signer) {
        return Ok(());
    }
    let pem = request["spec"]["request"].as_str().unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(pem).unwrap_or_default();
    let parsed = pki::csr::Csr::from_pem(&pem).map_err(|e| {
        let why = e.to_string();
        let why = why.strip_prefix("certificate signing request: ").unwrap_or(&why).to_owned();
        refuse(a, format!("unable to parse csr: {why}"))
    })?;
    if parsed.subject.common_name != format!("system:node:{node}") {
        return Err(refuse(a, format!("can only create a node CSR with CN=system:node:{node}")));
    }
    Ok(())
}
