//! What claims to devices are charged: what else there is decides.

use crate::admission::lookup::Objects;
use crate::admission::{Attributes, Operation};
use api::core::v1::Pod;
use api::resource::v1::{DeviceClass, ResourceClaim};
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::typed;
use rules::quota::devices::{Asking, DeviceClasses, MadeFor};
use rules::quota::{Usage, pod_usage};
use std::sync::Arc;

/// Classes of devices, claims to them, and the pods that claims are made for.
pub(in crate::admission) struct Devices {
    pub classes: Arc<Objects>,
    pub claims: Arc<Objects>,
    pub pods: Arc<Objects>,
}

impl Devices {
    /// What claims are charged by.
    pub(super) fn classes(&self) -> Result<DeviceClasses, Status> {
        let read = |class: &_| typed(class).map_err(Status::internal_error);
        let classes = self.classes.list("")?;
        let read = classes.iter().map(|class| {
            let class: DeviceClass = read(class)?;
            Ok((class.metadata.name, class.spec.extended_resource_name))
        });
        read.collect()
    }

    /// What the pod is charged that the claim was made for, if that is so. Where it cannot be told, the claim is charged in
    /// full.
    pub(super) fn charged(&self, a: &Attributes<'_>, claim: &ResourceClaim, now: Time) -> Option<Usage> {
        let made_for = MadeFor::of(claim)?;
        let made_for = if a.operation == Operation::Create { made_for.being_made() } else { made_for };
        let pod = self.pods.get(a.namespace, &made_for.pod).ok()??;
        let pod: Pod = typed(&pod).ok()?;
        let usage = pod_usage(&pod, now);
        let asking = Asking::of(&pod, &usage)?;
        let first = || {
            let claims = self.claims.list(a.namespace).unwrap_or_default();
            let claims = claims.iter().filter_map(|claim| MadeFor::of(&typed(claim).ok()?));
            claims.filter(|other| other.pod_uid == made_for.pod_uid).min_by(MadeFor::age)
        };
        made_for.is_of(&asking, first).then_some(usage)
    }
}
