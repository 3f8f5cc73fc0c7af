//! Hooks of `apiregistration.k8s.io`: APIService.

use super::Row;
use super::check::{Check, subdomain};
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{absent_or, column, int, list, name, object_age, text, with};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::validation::{is_dns1035_label, is_valid_port_num};
use apimachinery::value::Value;

pub(super) const STRATEGIES: &[Row] = &[("apiregistration.k8s.io", "APIService", &API_SERVICES)];

static API_SERVICES: Plain = Plain {
    default: |service| {
        with(service, "spec", |spec| with(spec, "service", |service| absent_or(service, "port", 443)));
    },
    // What this server serves itself is there at once.
    prepare_for_create: |service, _| {
        if service["spec"]["service"].is_null() {
            service["status"] = json!({"conditions": [{
                "type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available",
                "lastTransitionTime": service["metadata"]["creationTimestamp"],
            }]});
        }
    },
    validate,
    validate_update: |service, _, context| match context.subresource {
        Some(_) => validate_status(service),
        None => ErrorList::new(),
    },
    columns: &[
        NAME,
        column("Service", "string", 0, "The reference to the service that hosts this API endpoint."),
        column("Available", "string", 0, "Whether this service is available."),
        AGE,
    ],
    cells: |service, now| {
        let spec = &service["spec"]["service"];
        let host = match spec.is_object() {
            true => format!("{}/{}", text(spec, &["namespace"]), text(spec, &["name"])),
            false => "Local".into(),
        };
        vec![name(service), host.into(), available(service).into(), object_age(service, now).into()]
    },
    ..Plain::NEW
};

fn available(service: &Value) -> String {
    let conditions = list(service, &["status", "conditions"]);
    let Some(condition) = conditions.iter().find(|c| c["type"] == "Available") else {
        return "Unknown".into();
    };
    match (text(condition, &["status"]), text(condition, &["reason"])) {
        (status @ "True", _) | (status, "") => status.into(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

fn validate(service: &Value) -> ErrorList {
    let mut check = Check::default();
    let (path, spec) = (Path::new("spec"), &service["spec"]);
    let (group, version) = (text(spec, &["group"]), text(spec, &["version"]));
    let wanted = format!("{version}.{group}");
    for member in ["generateName", "name"] {
        let is = text(service, &["metadata", member]);
        if !is.is_empty() && is != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            check.invalid(&Path::new("metadata").child(member), is, why);
        }
    }
    let at = path.child("group");
    if group.is_empty() {
        let why = "only v1 may have an empty group and it better be legacy kube";
        check.when(version != "v1", || Error::required(&at, why));
    } else {
        check.keeps(&at, group, subdomain);
    }
    check.keeps(&path.child("version"), version, |text| is_dns1035_label(text).into_iter().collect());
    for (member, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = int(spec, &[member]);
        if !(1..=most).contains(&priority) {
            let why = format!("must be positive and less than {most}");
            check.invalid(&path.child(member), priority, why);
        }
    }
    let insecure = spec["insecureSkipTLSVerify"] == true;
    let at = path.child("insecureSkipTLSVerify");
    let bundle = text(spec, &["caBundle"]);
    let host = &spec["service"];
    if !host.is_object() {
        if !bundle.is_empty() {
            let size = bundle.trim_end_matches('=').len() * 3 / 4;
            let why = "local APIServices may not have a caBundle";
            check.invalid(&path.child("caBundle"), format!("{size} bytes"), why);
        }
        if insecure {
            check.invalid(&at, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return check.0;
    }
    let path = path.child("service");
    check.present(&path.child("namespace"), text(host, &["namespace"]), "");
    check.present(&path.child("name"), text(host, &["name"]), "");
    let port = int(host, &["port"]);
    let wrong: Vec<String> = is_valid_port_num(port).into_iter().collect();
    if !wrong.is_empty() {
        let why = format!("port is not valid: {}", wrong.join(", "));
        check.invalid(&path.child("port"), port, why);
    }
    if insecure && !bundle.is_empty() {
        check.invalid(&at, true, "may not be true if caBundle is present");
    }
    check.0
}

fn validate_status(service: &Value) -> ErrorList {
    let mut check = Check::default();
    let path = Path::new("status").child("conditions");
    for (i, condition) in list(service, &["status", "conditions"]).iter().enumerate() {
        let known = ["True", "False", "Unknown"];
        check.one_of(&path.index(i).child("status"), text(condition, &["status"]), &known);
    }
    check.0
}
