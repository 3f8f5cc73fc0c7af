//! The rules of a claim's status: what it was given, by whom it is used, and what drivers say of its devices.

use super::validation::{
    MAX_CONFIGS, MAX_RESULTS, Names, binding, extension, limited, names, opaque, pool_name, reference,
    references, set,
};
use crate::Context;
use crate::check::{Check, label};
use crate::core::pod_validation::validate_node_selector;
use crate::core::validate_driver_name;
use crate::shown::shown;
use crate::tree::{list, typed};
use api::resource::v1::{AllocatedDeviceStatus, DeviceAllocationResult, NetworkDeviceData, ResourceClaim};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::validation::is_valid_interface_address;
use apimachinery::value::Value;
use std::collections::HashSet;

const MAX_RESERVED: usize = 256;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const MAX_ADDRESSES: usize = 16;

/// Takes what drivers said of devices away that the claim no longer has.
pub(super) fn drop_deallocated(claim: &mut Value, old: &Value) {
    let id = |device: &Value| ["driver", "pool", "device", "shareID"].map(|key| device[key].clone());
    let given = |claim: &Value| -> Vec<_> {
        list(claim, &["status", "allocation", "devices", "results"]).iter().map(id).collect()
    };
    let (now, mut gone) = (given(claim), given(old));
    gone.retain(|device| !now.contains(device));
    let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) else { return };
    let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) else { return };
    devices.retain(|device| !gone.contains(&id(device)));
    if devices.is_empty() {
        status.remove("devices");
    }
}

/// Devices may be given for administration only where the namespace says so.
fn admin_access(check: &mut Check, claim: &Value, old: &Value, context: &Context) {
    let asked = |claim: &Value| {
        let results = list(claim, &["status", "allocation", "devices", "results"]);
        results.iter().position(|result| result["adminAccess"] == true)
    };
    let Some(i) = asked(claim).filter(|_| asked(old).is_none()) else { return };
    let path = Path::new("status").child("allocation").child("devices").child("results");
    super::validation::require_admin_label(check, &path.index(i).child("adminAccess"), context);
}

fn share(check: &mut Check, path: &Path, id: Option<&str>) {
    let Some(id) = id else { return };
    let at = path.child("shareID");
    if let Err(why) = parse_uid(id) {
        check.invalid(&at, id, format!("error validating uid: {why}"));
    } else if id.len() != 36 || id.bytes().any(|b| b.is_ascii_uppercase()) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        check.invalid(&at, id, why);
    }
}

/// Reads a UUID in any of the forms that Go's library knows.
fn parse_uid(text: &str) -> Result<(), String> {
    let dashed = match text.len() {
        36 => text,
        38 => text.get(1..37).unwrap_or_default(),
        45 if text.to_ascii_lowercase().starts_with("urn:uuid:") => text.get(9..).unwrap_or_default(),
        45 => return Err(format!("invalid urn prefix: {:?}", text.get(..9).unwrap_or_default())),
        32 if text.bytes().all(|b| b.is_ascii_hexdigit()) => return Ok(()),
        32 => return Err("invalid UUID format".into()),
        length => return Err(format!("invalid UUID length: {length}")),
    };
    let fits = |(i, b): (usize, u8)| match i {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_hexdigit(),
    };
    match dashed.len() == 36 && dashed.bytes().enumerate().all(fits) {
        true => Ok(()),
        false => Err("invalid UUID format".into()),
    }
}

fn network_data(check: &mut Check, path: &Path, network: &NetworkDeviceData) {
    for (member, text, max) in [
        ("interfaceName", &network.interface_name, MAX_INTERFACE_NAME),
        ("hardwareAddress", &network.hardware_address, MAX_HARDWARE_ADDRESS),
    ] {
        check.when(text.len() > max, || Error::too_long(&path.child(member), max));
    }
    set(check, &path.child("ips"), &network.ips, MAX_ADDRESSES, String::clone, |check, path, address| {
        check.extend(is_valid_interface_address(path, address));
    });
}

/// A device as upstream's own type shows it.
fn device_id(device: &AllocatedDeviceStatus) -> BadValue {
    let json = |text: &str| Value::from(text).to_string();
    let [driver, pool, name] = [&device.driver, &device.pool, &device.device].map(|text| json(text));
    let share = device.share_id.as_deref().map_or_else(|| "null".to_owned(), json);
    BadValue::verbatim(format!(
        "{{\"Driver\":{driver},\"Pool\":{pool},\"Device\":{name},\"ShareID\":{share}}}"
    ))
}

pub(super) fn validate_claim_status(claim: &Value, old: &Value, context: &Context) -> ErrorList {
    let mut check = Check::default();
    admin_access(&mut check, claim, old, context);
    let shown = shown(claim, &["status", "allocation"]);
    let (claim, was): (ResourceClaim, ResourceClaim) = (typed(claim), typed(old));
    let (path, status, before) = (Path::new("status"), &claim.status, &was.status);
    let at = path.child("reservedFor");
    set(
        &mut check,
        &at,
        &status.reserved_for,
        MAX_RESERVED,
        |r| r.uid.clone(),
        |check, path, consumer| {
            for (member, text) in
                [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)]
            {
                check.present(&path.child(member), text, "");
            }
        },
    );
    let allocated: HashSet<(String, String, String)> = status
        .allocation
        .iter()
        .flat_map(|a| &a.devices.results)
        .map(|r| (r.driver.clone(), r.pool.clone(), shared(&r.device, r.share_id.as_deref())))
        .collect();
    let at = path.child("devices");
    let key = |d: &api::resource::v1::AllocatedDeviceStatus| {
        format!("{}/{}/{}", d.driver, d.pool, shared(&d.device, d.share_id.as_deref()))
    };
    set(&mut check, &at, &status.devices, usize::MAX, key, |check, path, device| {
        validate_driver_name(check, &path.child("driver"), &device.driver);
        pool_name(check, &path.child("pool"), &device.pool);
        check.keeps(&path.child("device"), &device.device, label);
        share(check, path, device.share_id.as_deref());
        let id =
            (device.driver.clone(), device.pool.clone(), shared(&device.device, device.share_id.as_deref()));
        if !allocated.contains(&id) {
            check.invalid(path, device_id(device), "must be an allocated device in the claim");
        }
        let at = path.child("conditions");
        check.extend(apimachinery::meta::validation::validate_conditions(&device.conditions, &at));
        if !device.data.is_null() {
            extension(check, &path.child("data"), &device.data);
        }
        if let Some(network) = &device.network_data {
            network_data(check, &path.child("networkData"), network);
        }
    });
    if !status.reserved_for.is_empty() {
        let at = path.child("reservedFor");
        if status.allocation.is_none() {
            check.forbidden(&at, "may not be specified when `allocated` is not set");
        } else if claim.metadata.deletion_timestamp.is_some()
            && status.reserved_for.iter().any(|r| !before.reserved_for.contains(r))
        {
            let why =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            check.forbidden(&at, why);
        }
    }
    let at = path.child("allocation");
    match (&status.allocation, &before.allocation) {
        (Some(new), Some(was)) if new != was => {
            check.invalid(&at, shown, "field is immutable");
        }
        (Some(new), None) => {
            results(&mut check, &at.child("devices"), &new.devices, &names(&claim.spec.devices));
            if let Some(selector) = &new.node_selector {
                validate_node_selector(&mut check.0, selector, &at.child("nodeSelector"));
            }
        }
        _ => {}
    }
    check.0
}

fn shared(device: &str, share: Option<&str>) -> String {
    share.map_or_else(|| device.to_owned(), |share| format!("{device}/{share}"))
}

fn results(check: &mut Check, path: &Path, allocation: &DeviceAllocationResult, names: &Names) {
    limited(check, &path.child("results"), &allocation.results, MAX_RESULTS, |check, path, result| {
        reference(check, &path.child("request"), &result.request, names);
        validate_driver_name(check, &path.child("driver"), &result.driver);
        pool_name(check, &path.child("pool"), &result.pool);
        check.keeps(&path.child("device"), &result.device, label);
        binding(check, path, &result.binding_conditions, &result.binding_failure_conditions);
        share(check, path, result.share_id.as_deref());
    });
    limited(check, &path.child("config"), &allocation.config, 2 * MAX_CONFIGS, |check, path, config| {
        let at = path.child("source");
        if config.source.is_empty() {
            check.required(&at, "");
        } else {
            check.one_of(&at, &config.source, &["FromClaim", "FromClass"]);
        }
        references(check, &path.child("requests"), &config.requests, names);
        opaque(check, path, config.opaque.as_ref());
    });
}
