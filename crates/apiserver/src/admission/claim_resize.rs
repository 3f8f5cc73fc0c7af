//! PersistentVolumeClaimResize: only bound claims of a class that allows it may grow.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::quantity::Quantity;
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::sync::Arc;

pub(super) struct PersistentVolumeClaimResize(pub Arc<Objects>);

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn size(claim: &Value) -> Option<Quantity> {
    claim["spec"]["resources"]["requests"]["storage"].as_str()?.parse().ok()
}

fn class(claim: &Value) -> &str {
    let annotated = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    annotated.or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default()
}

impl Immediate for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (Some(claim), Some(old)) = (a.written("", "persistentvolumeclaims"), a.old) else {
            return Ok(());
        };
        if size(claim) <= size(old) {
            return Ok(());
        }
        let refuse = |why: &str| Err(a.forbidden(why));
        if old["status"]["phase"] != "Bound" {
            return refuse("Only bound persistent volume claims can be expanded");
        }
        let name = class(claim);
        let grows = !name.is_empty()
            && name == class(old)
            && self.0.get("", name)?.is_some_and(|c| c["allowVolumeExpansion"] == true);
        if grows {
            return Ok(());
        }
        refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        )
    }
}
