//! The rules of claims, their templates and device classes of `resource.k8s.io`; what slices share with them.

use super::selector::{self, Dialect, dialect};
use crate::Context;
use crate::check::{Check, label, subdomain};
use crate::core::validate_driver_name;
use crate::tree::typed;
use api::resource::v1::{
    DeviceClaim, DeviceClass, DeviceRequest, DeviceSelector, DeviceToleration, OpaqueDeviceConfiguration,
    ResourceClaim, ResourceClaimTemplate,
};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::meta::validation::{validate_annotations, validate_label_name, validate_labels};
use apimachinery::validation::{is_c_identifier, is_valid_label_value};
use apimachinery::value::Value;
use cel::device::Written;
use std::collections::{BTreeMap, HashSet};

const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
pub(super) const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_TOLERATIONS: usize = 16;
const MAX_PARAMETERS: usize = 10 * 1024;
pub(super) const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 4;
const MAX_ID: usize = 32;
const MAX_POOL: usize = 253;

const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// The names of a claim's requests, each with those of its alternatives.
pub(super) type Names = BTreeMap<String, HashSet<String>>;

pub(super) fn names(claim: &DeviceClaim) -> Names {
    let alternatives = |r: &DeviceRequest| r.first_available.iter().map(|s| s.name.clone()).collect();
    claim.requests.iter().map(|r| (r.name.clone(), alternatives(r))).collect()
}

/// A list within its limit, each item judged; an overlong one is not looked into.
pub(super) fn limited<T>(
    check: &mut Check,
    path: &Path,
    items: &[T],
    max: usize,
    mut judge: impl FnMut(&mut Check, &Path, &T),
) -> bool {
    if items.len() > max {
        check.0.push(Error::too_many(path, Some(items.len()), max));
        return false;
    }
    for (i, item) in items.iter().enumerate() {
        judge(check, &path.index(i), item);
    }
    true
}

/// The same, where no two items have the same key.
pub(super) fn set<T>(
    check: &mut Check,
    path: &Path,
    items: &[T],
    max: usize,
    key: impl Fn(&T) -> String,
    judge: impl FnMut(&mut Check, &Path, &T),
) {
    if !limited(check, path, items, max, judge) {
        return;
    }
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            check.0.push(Error::duplicate(&path.index(i), key.as_str()));
        }
        seen.insert(key);
    }
}

/// The label of a namespace whose claims may ask for administration.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";

pub(super) fn require_admin_label(check: &mut Check, path: &Path, context: &Context) {
    if (context.namespace.0)(ADMIN_LABEL).is_none_or(|value| value != "true") {
        let why = format!(
            "admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"
        );
        check.forbidden(path, why);
    }
}

/// Upstream names the place in a claim, of templates too.
fn admin_access(check: &mut Check, claim: &DeviceClaim, context: &Context) {
    let asks = |request: &DeviceRequest| request.exactly.as_ref().and_then(|r| r.admin_access) == Some(true);
    if let Some(i) = claim.requests.iter().position(asks) {
        let path = Path::new("spec").child("devices").child("requests").index(i).child("adminAccess");
        require_admin_label(check, &path, context);
    }
}

pub(super) fn validate_claim(claim: &Value, context: &Context) -> ErrorList {
    let mut check = Check::default();
    let claim: ResourceClaim = typed(claim);
    admin_access(&mut check, &claim.spec.devices, context);
    let dialect = dialect(context, Written::Now);
    devices(&mut check, &Path::new("spec").child("devices"), &claim.spec.devices, dialect);
    check.0
}

pub(super) fn validate_new_template(template: &Value, context: &Context) -> ErrorList {
    let mut check = Check::default();
    admin_access(&mut check, &typed::<ResourceClaimTemplate>(template).spec.spec.devices, context);
    check.extend(validate_template(template, dialect(context, Written::Now)));
    check.0
}

/// Members of metadata that a template cannot set, and what upstream calls them.
const NOT_IN_TEMPLATES: [(&str, &str); 13] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

/// The specification of a template cannot change: what its expressions say was said before.
pub(super) fn validate_old_template(template: &Value, context: &Context) -> ErrorList {
    validate_template(template, dialect(context, Written::Before))
}

fn validate_template(template: &Value, dialect: Dialect) -> ErrorList {
    let mut check = Check::default();
    let path = Path::new("spec");
    let at = path.child("metadata");
    let metadata = template["spec"]["metadata"].as_object();
    for (member, shown) in NOT_IN_TEMPLATES {
        if metadata.and_then(|m| m.get(member)).is_some_and(|value| !value.is_null()) {
            check.forbidden(&at.child(shown), "cannot be set");
        }
    }
    let template: ResourceClaimTemplate = typed(template);
    check.extend(validate_annotations(&template.spec.metadata.annotations, &at.child("annotations")));
    check.extend(validate_labels(&template.spec.metadata.labels, &at.child("labels")));
    devices(&mut check, &path.child("spec").child("devices"), &template.spec.spec.devices, dialect);
    check.0
}

fn devices(check: &mut Check, path: &Path, claim: &DeviceClaim, dialect: Dialect) {
    let names = names(claim);
    let judge = |check: &mut Check, path: &Path, one: &DeviceRequest| request(check, path, one, dialect);
    set(check, &path.child("requests"), &claim.requests, MAX_REQUESTS, |r| r.name.clone(), judge);
    limited(
        check,
        &path.child("constraints"),
        &claim.constraints,
        MAX_CONSTRAINTS,
        |check, path, constraint| {
            references(check, &path.child("requests"), &constraint.requests, &names);
            match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(name), _) => full_name(check, &path.child("matchAttribute"), name),
            (None, Some(name)) => full_name(check, &path.child("distinctAttribute"), name),
            (None, None) if dialect.0.consumable_capacity => check.required(
                path,
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            ),
            (None, None) => check.required(&path.child("matchAttribute"), ""),
        }
        },
    );
    limited(check, &path.child("config"), &claim.config, MAX_CONFIGS, |check, path, config| {
        references(check, &path.child("requests"), &config.requests, &names);
        opaque(check, path, config.opaque.as_ref());
    });
}

fn request(check: &mut Check, path: &Path, request: &DeviceRequest, dialect: Dialect) {
    check.keeps(&path.child("name"), &request.name, label);
    match (&request.exactly, request.first_available.is_empty()) {
        (None, true) => check.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), false) => check.invalid(
            path,
            BadValue::verbatim("null"),
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (None, false) => {
            let at = path.child("firstAvailable");
            let judge = |check: &mut Check, path: &Path, one: &api::resource::v1::DeviceSubRequest| {
                check.keeps(&path.child("name"), &one.name, label);
                class_name(check, &path.child("deviceClassName"), &one.device_class_name);
                selectors(check, &path.child("selectors"), &one.selectors, dialect);
                amount(check, path, &one.allocation_mode, one.count);
                tolerations(check, &path.child("tolerations"), &one.tolerations);
            };
            set(check, &at, &request.first_available, MAX_ALTERNATIVES, |r| r.name.clone(), judge);
        }
        (Some(one), true) => {
            let path = path.child("exactly");
            class_name(check, &path.child("deviceClassName"), &one.device_class_name);
            selectors(check, &path.child("selectors"), &one.selectors, dialect);
            amount(check, &path, &one.allocation_mode, one.count);
            tolerations(check, &path.child("tolerations"), &one.tolerations);
        }
    }
}

fn class_name(check: &mut Check, path: &Path, name: &str) {
    check.present_and_keeps(path, name, "", subdomain);
}

fn amount(check: &mut Check, path: &Path, mode: &str, count: i64) {
    match mode {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            check.invalid(&path.child("count"), count, why);
        }
        "All" => {}
        "ExactCount" if count <= 0 => check.invalid(&path.child("count"), count, "must be greater than zero"),
        "ExactCount" => {}
        other => check.one_of(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
}

fn tolerations(check: &mut Check, path: &Path, tolerations: &[DeviceToleration]) {
    limited(check, path, tolerations, MAX_TOLERATIONS, |check, path, toleration| {
        if !toleration.key.is_empty() {
            check.extend(validate_label_name(&toleration.key, &path.child("key")));
        }
        let value = path.child("value");
        match toleration.operator.as_str() {
            "Exists" if !toleration.value.is_empty() => {
                check.invalid(&value, toleration.value.as_str(), "must be empty for operator `Exists`");
            }
            "Exists" => {}
            "Equal" => label_value(check, &value, &toleration.value),
            "" => check.required(&path.child("operator"), ""),
            other => check.one_of(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !toleration.effect.is_empty() {
            check.one_of(&path.child("effect"), &toleration.effect, EFFECTS);
        }
    });
}

pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

pub(super) fn label_value(check: &mut Check, path: &Path, value: &str) {
    is_valid_label_value(value).into_iter().for_each(|why| check.invalid(path, value, why));
}

fn selectors(check: &mut Check, path: &Path, selectors: &[DeviceSelector], dialect: Dialect) {
    limited(check, path, selectors, MAX_SELECTORS, |check, path, selector| match &selector.cel {
        None => check.required(&path.child("cel"), ""),
        Some(cel) if cel.expression.len() > MAX_PARAMETERS => {
            check.0.push(Error::too_long(&path.child("cel").child("expression"), MAX_PARAMETERS));
        }
        Some(cel) => {
            let path = path.child("cel").child("expression");
            check.extend(selector::validate(&path, &cel.expression, dialect));
        }
    });
}

pub(super) fn references(check: &mut Check, path: &Path, references: &[String], names: &Names) {
    set(check, path, references, MAX_REQUESTS, String::clone, |check, path, name| {
        reference(check, path, name, names);
    });
}

pub(super) fn reference(check: &mut Check, path: &Path, name: &str, names: &Names) {
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        check.invalid(path, name, NO_REQUEST);
        return;
    }
    for part in &parts {
        check.keeps(path, part, label);
    }
    let known = names.get(parts[0]).is_some_and(|subs| parts.get(1).is_none_or(|sub| subs.contains(*sub)));
    if !known {
        check.invalid(path, name, NO_REQUEST);
    }
}

pub(super) fn opaque(check: &mut Check, path: &Path, config: Option<&OpaqueDeviceConfiguration>) {
    let path = path.child("opaque");
    let Some(config) = config else { return check.required(&path, "") };
    validate_driver_name(check, &path.child("driver"), &config.driver);
    extension(check, &path.child("parameters"), &config.parameters);
}

pub(super) fn extension(check: &mut Check, path: &Path, value: &Value) {
    match value {
        Value::Null => check.required(path, ""),
        Value::Object(_) if value.to_string().len() > MAX_PARAMETERS => {
            check.0.push(Error::too_long(path, MAX_PARAMETERS));
        }
        Value::Object(_) => {}
        _ => check.invalid(path, "<value omitted>", "must be a valid JSON object"),
    }
}

/// A name within a domain, as `driver.example.com/model`.
fn full_name(check: &mut Check, path: &Path, name: &str) {
    qualified(check, path, name);
    if !name.contains('/') {
        check.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

pub(super) fn qualified(check: &mut Check, path: &Path, name: &str) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => identifier(check, path, id),
        [domain, id] => {
            if domain.is_empty() {
                check.invalid(path, "", "the domain must not be empty");
            } else {
                validate_driver_name(check, path, domain);
            }
            if id.is_empty() {
                check.invalid(path, "", "the name must not be empty");
            } else {
                identifier(check, path, id);
            }
        }
        _ => {}
    }
}

fn identifier(check: &mut Check, path: &Path, id: &str) {
    check.when(id.len() > MAX_ID, || Error::too_long(path, MAX_ID));
    is_c_identifier(id).into_iter().for_each(|why| check.invalid(path, id, why));
}

pub(super) fn pool_name(check: &mut Check, path: &Path, name: &str) {
    if check.present(path, name, "") {
        check.when(name.len() > MAX_POOL, || Error::too_long(path, MAX_POOL));
        name.split('/').for_each(|part| check.keeps(path, part, subdomain));
    }
}

pub(super) fn binding(check: &mut Check, path: &Path, conditions: &[String], failures: &[String]) {
    let (at, failed_at) = (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    for (path, names) in [(&at, conditions), (&failed_at, failures)] {
        limited(check, path, names, MAX_CONDITIONS, |check, path, name: &String| {
            check.extend(validate_label_name(name, path));
        });
    }
    for (path, names, others) in [(&at, conditions, &[][..]), (&failed_at, failures, conditions)] {
        let mut seen = HashSet::new();
        for (i, name) in names.iter().enumerate() {
            check.when(!seen.insert(name), || Error::duplicate(&path.index(i), name.as_str()));
            if others.contains(name) {
                let why = "bindingFailureConditions must not overlap with bindingConditions";
                check.invalid(&path.index(i), name.as_str(), why);
            }
        }
    }
    if conditions.is_empty() && !failures.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        check.invalid(&at, BadValue::verbatim("null"), why);
    }
    if failures.is_empty() && !conditions.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        check.invalid(&failed_at, BadValue::verbatim("null"), why);
    }
}

pub(super) fn validate_class(class: &Value, old: Option<&Value>, context: &Context) -> ErrorList {
    let is_as_before = old.is_some_and(|old| old["spec"] == class["spec"]);
    let dialect = dialect(context, if is_as_before { Written::Before } else { Written::Now });
    let mut check = Check::default();
    let class: DeviceClass = typed(class);
    let (path, spec) = (Path::new("spec"), &class.spec);
    selectors(&mut check, &path.child("selectors"), &spec.selectors, dialect);
    limited(&mut check, &path.child("config"), &spec.config, MAX_CONFIGS, |check, path, config| {
        opaque(check, path, config.opaque.as_ref());
    });
    if let Some(name) = &spec.extended_resource_name
        && !is_extended_resource(name)
    {
        let at = path.child("extendedResourceName");
        check.invalid(&at, name.as_str(), "must be a valid extended resource name");
    }
    check.0
}

/// A name in a domain that is not Kubernetes' own, and that a quota can name.
fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native
        && !name.starts_with("requests.")
        && apimachinery::validation::is_qualified_name(&format!("requests.{name}")).is_empty()
}
