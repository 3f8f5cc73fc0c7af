//! DenyServiceExternalIPs: no Service gets external addresses that it does not have already.

use super::immediate::Immediate;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use apimachinery::value::Value;

#[derive(Debug)]
pub(super) struct DenyServiceExternalIPs;

fn addresses(service: &Value) -> &[Value] {
    service["spec"]["externalIPs"].as_array().map_or(&[], Vec::as_slice)
}

impl Immediate for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let known = a.old.map(addresses).unwrap_or_default();
        let new = a.written("", "services").map(addresses).unwrap_or_default();
        match new.iter().all(|address| known.contains(address)) {
            true => Ok(()),
            false => Err(a.forbidden("Use of external IPs is denied by admission control")),
        }
    }
}
