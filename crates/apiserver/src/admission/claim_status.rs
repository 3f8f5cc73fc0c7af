//! Who may say what of a claim to devices: what it gets and who uses it, who may bind claims; how its devices are, who may
//! speak for their drivers, on the claim's node or on any. No plugin of upstream's, whose registry asks whichever of them run
//! (KEP-4817, `DRAResourceClaimGranularStatusAuthorization`).

use super::{Attributes, Operation, Plugin, When};
use crate::authz::{self, Authorizer};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const GATE: &str = "DRAResourceClaimGranularStatusAuthorization";
const GROUP: &str = "resource.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const ASSOCIATED_NODE: &str = "associated-node:";
const ARBITRARY_NODE: &str = "arbitrary-node:";

pub(super) struct ClaimStatus {
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Whether claims tell how their devices are: `DRAResourceClaimDeviceStatus`.
    pub tells_devices: bool,
}

fn devices(claim: &Value) -> &[Value] {
    claim["status"]["devices"].as_array().map_or(&[], Vec::as_slice)
}

/// The drivers whose devices are told of otherwise than before.
fn drivers<'a>(claim: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let (now, before) = (devices(claim), devices(old));
    let came = now.iter().filter(|device| !before.contains(device));
    let went = before.iter().filter(|device| !now.contains(device));
    came.chain(went).filter_map(|device| device["driver"].as_str()).collect()
}

/// The one node where what a claim was given is.
fn node(claim: &Value) -> Option<&str> {
    let terms = claim["status"]["allocation"]["nodeSelector"]["nodeSelectorTerms"].as_array()?;
    let [term] = terms.as_slice() else { return None };
    let none = |key: &str| term[key].as_array().is_none_or(Vec::is_empty);
    let [field] = term["matchFields"].as_array().filter(|_| none("matchExpressions"))?.as_slice() else {
        return None;
    };
    let [name] = field["values"].as_array()?.as_slice() else { return None };
    name.as_str().filter(|_| field["key"] == "metadata.name" && field["operator"] == "In")
}

impl ClaimStatus {
    /// Asks about a part of claims that is no subresource; why not, if not.
    async fn may(
        &self,
        a: &Attributes<'_>,
        verb: &str,
        subresource: &str,
        (namespace, name): (&str, &str),
    ) -> Result<(), String> {
        let of = (GROUP, &*a.resource.row.version, "resourceclaims");
        let about = authz::Attributes::about(a.user, verb, of);
        let attributes = authz::Attributes { subresource, namespace, name, ..about };
        let decision = authz::decide(&self.authorizers, &attributes).await;
        attributes.judge(decision).map_err(|status| status.message)
    }

    /// Whether the user is a service account of a pod on the claim's node.
    fn is_there(a: &Attributes<'_>, claim: &Value) -> bool {
        let of_pods = a.user.name.starts_with("system:serviceaccount:");
        match a.user.extra.get(NODE_NAME).map(Vec::as_slice) {
            Some([name]) => of_pods && node(claim) == Some(name),
            _ => false,
        }
    }

    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (Some(claim), Some(old)) = (a.object.as_deref(), a.old) else { return Ok(()) };
        let (status, before) = (&claim["status"], &old["status"]);
        let path = Path::new("status");
        let mut errors = ErrorList::new();
        let same = |key: &str| status[key] == before[key];
        if !(same("allocation") && same("reservedFor"))
            && let Err(why) = self.may(a, a.verb, "binding", ("", "")).await
        {
            let why = format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{}\" permission: {why}",
                a.verb
            );
            errors.push(Error::forbidden(&path.child("allocation"), why));
        }
        if self.tells_devices && !status["allocation"].is_null() {
            let mut verbs = vec![format!("{ARBITRARY_NODE}{}", a.verb)];
            if Self::is_there(a, claim) {
                verbs.insert(0, format!("{ASSOCIATED_NODE}{}", a.verb));
            }
            for driver in drivers(claim, old) {
                let Err(why) = self.may_speak_for(a, &verbs, driver).await else { continue };
                let why = format!(
                    "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {why}",
                    verbs.join(" ")
                );
                errors.push(Error::forbidden(&path.child("devices"), why));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&a.resource.group_kind(), a.name, &errors))
    }

    /// By any of the verbs; else why not by the first.
    async fn may_speak_for(&self, a: &Attributes<'_>, verbs: &[String], driver: &str) -> Result<(), String> {
        let mut first = Ok(());
        for verb in verbs {
            match self.may(a, verb, "driver", (a.namespace, driver)).await {
                Ok(()) => return Ok(()),
                Err(why) if first.is_ok() => first = Err(why),
                Err(_) => {}
            }
        }
        first
    }
}

impl Plugin for ClaimStatus {
    fn name(&self) -> &'static str {
        "ResourceClaimStatus"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Update])
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if !attributes.is_of(GROUP, "resourceclaims", "status") {
                return Ok(());
            }
            self.check(attributes).await
        })
    }
}
