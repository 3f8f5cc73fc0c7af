//! Hooks of `resource.k8s.io`.

mod selector;
mod slices;
mod status;
mod taint_rules;
mod validation;

use self::validation as rules;
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{column, each, list, name, object_age, or, text, with};
use super::{Context, Row};
use apimachinery::field::ErrorList;
use apimachinery::value::Value;

const GROUP: &str = "resource.k8s.io";

pub(super) const STRATEGIES: &[Row] = &[
    (GROUP, "DeviceClass", &CLASSES),
    (GROUP, "DeviceTaintRule", &taint_rules::TAINT_RULES),
    (GROUP, "ResourceClaim", &CLAIMS),
    (GROUP, "ResourceClaimTemplate", &TEMPLATES),
    (GROUP, "ResourceSlice", &SLICES),
];

/// The mode and number of devices of a request, where it says nothing.
fn default_amount(request: &mut Value) {
    or(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        or(request, "count", 1);
    }
}

fn default_requests(spec: &mut Value) {
    with(spec, "devices", |devices| {
        each(devices, "requests", |request| {
            with(request, "exactly", default_amount);
            each(request, "firstAvailable", default_amount);
        });
    });
}

static CLASSES: Plain = Plain {
    validate_create: |class, context| rules::validate_class(class, None, context),
    validate_update: |class, old, context| rules::validate_class(class, Some(old), context),
    has_generation: true,
    columns: &[NAME, AGE],
    cells: |class, now| vec![name(class), object_age(class, now).into()],
    ..Plain::NEW
};

static CLAIMS: Plain = Plain {
    default: |claim| with(claim, "spec", default_requests),
    validate_create: rules::validate_claim,
    prepare_for_update: |claim, old, context| {
        if context.subresource == Some("status") {
            status::drop_deallocated(claim, old);
        }
    },
    validate_update: |claim, old, context| match context.subresource {
        Some("status") => status::validate_claim_status(claim, old, context),
        _ => ErrorList::new(),
    },
    immutable: &[&["spec"]],
    columns: &[
        NAME,
        column("State", "string", 0, "A summary of the current state (allocated, pending, reserved, etc.)."),
        AGE,
    ],
    cells: |claim, now| vec![name(claim), state(claim).into(), object_age(claim, now).into()],
    ..Plain::NEW
};

fn state(claim: &Value) -> String {
    let deleted = !text(claim, &["metadata", "deletionTimestamp"]).is_empty();
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if claim["status"]["allocation"].is_null() {
        if !deleted {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !list(claim, &["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
    }
    states.join(",")
}

static TEMPLATES: Plain = Plain {
    default: |template| with(template, "spec", |spec| with(spec, "spec", default_requests)),
    validate_create: rules::validate_new_template,
    validate_update: |template, _, context| rules::validate_old_template(template, context),
    immutable: &[&["spec"]],
    columns: &[NAME, AGE],
    cells: |template, now| vec![name(template), object_age(template, now).into()],
    ..Plain::NEW
};

/// Taints say since when they are there; those that do not, since now.
fn date_taints(slice: &mut Value, context: &Context) {
    with(slice, "spec", |spec| {
        each(spec, "devices", |device| {
            each(device, "taints", |taint| or(taint, "timeAdded", context.now.to_string()));
        });
    });
}

static SLICES: Plain = Plain {
    prepare_for_create: date_taints,
    prepare_for_update: |slice, _, context| date_taints(slice, context),
    validate_create: |slice, _| slices::validate_slice(slice),
    validate_update: |slice, old, _| slices::validate_slice_update(slice, old),
    has_generation: true,
    columns: &[
        NAME,
        column(
            "Node",
            "string",
            0,
            "NodeName identifies the node which provides the resources in this pool. A field selector can be used to list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access from nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new nodes of the same type as some old node might also make new resources available.\n\nExactly one of NodeName, NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
        ),
        column(
            "Driver",
            "string",
            0,
            "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end with a DNS domain owned by the vendor of the driver. It should use only lower case characters. This field is immutable.",
        ),
        column(
            "Pool",
            "string",
            0,
            "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains separated by slashes. This field is immutable.",
        ),
        AGE,
    ],
    cells: |slice, now| {
        vec![
            name(slice),
            text(slice, &["spec", "nodeName"]).into(),
            text(slice, &["spec", "driver"]).into(),
            text(slice, &["spec", "pool", "name"]).into(),
            object_age(slice, now).into(),
        ]
    },
    fields: &[
        ("spec.driver", |slice| text(slice, &["spec", "driver"]).to_owned()),
        ("spec.nodeName", |slice| text(slice, &["spec", "nodeName"]).to_owned()),
    ],
    ..Plain::NEW
};
