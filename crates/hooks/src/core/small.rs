//! Kinds with little of their own: configuration, accounts, endpoints, limits.

use super::{endpoints_validation, quota_validation};
use crate::tree::{absent_or, at, column, each, joined, list, name, object_age, or, text, typed, with};
use crate::{Column, Context, SelectableField, Strategy};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::validation::is_config_map_key;
use apimachinery::value::Value;

pub(super) const NAME: Column = column(
    "Name",
    "string",
    0,
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
);
pub(super) const AGE: Column = column(
    "Age",
    "string",
    0,
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);
/// What a Secret or ConfigMap may hold.
const MAX_SIZE: usize = 1 << 20;

fn count(object: &Value, member: &str) -> usize {
    object.get(member).and_then(Value::as_object).map_or(0, apimachinery::value::Map::len)
}

/// Keys and sizes of the members that hold data.
fn validate_data(object: &Value, members: &[&str]) -> ErrorList {
    let mut errors = ErrorList::default();
    let mut size = 0;
    for member in members {
        for (key, value) in object.get(*member).and_then(Value::as_object).into_iter().flatten() {
            let found = is_config_map_key(key);
            errors.extend(
                found.into_iter().map(|t| {
                    Error::invalid(&Path::new(member.to_string()).key(key.as_str()), key.as_str(), t)
                }),
            );
            let length = value.as_str().map_or(0, str::len);
            // Bytes are base64 here.
            size += if *member == "data" && members.len() == 2 { length } else { length / 4 * 3 };
        }
    }
    if size > MAX_SIZE {
        // Upstream names no field for the data of a ConfigMap.
        let at = if members.len() == 2 { Path::none().key("") } else { Path::new(members[0].to_string()) };
        errors.push(Error::too_long(&at, MAX_SIZE));
    }
    errors
}

/// An immutable object's data stay as they are, and so does its being immutable.
fn validate_immutable(object: &Value, old: &Value, members: &[&str]) -> ErrorList {
    let mut errors = ErrorList::default();
    if old["immutable"] != true {
        return errors;
    }
    const TEXT: &str = "field is immutable when `immutable` is set";
    if object["immutable"] != true {
        errors.push(Error::forbidden(&Path::new("immutable"), TEXT));
    }
    for member in members {
        if object.get(*member) != old.get(*member) {
            errors.push(Error::forbidden(&Path::new(member.to_string()), TEXT));
        }
    }
    errors
}

pub(super) struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        let mut errors = validate_data(object, &["data", "binaryData"]);
        let binary = object.get("binaryData").and_then(Value::as_object);
        for key in object.get("data").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
            if binary.is_some_and(|binary| binary.contains_key(key)) {
                let text = "duplicate of key present in binaryData";
                errors.push(Error::invalid(&Path::new("data").key(key.as_str()), key.as_str(), text));
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        let mut errors = self.validate(object, context);
        errors.extend(validate_immutable(object, old, &["data", "binaryData"]));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Data",
                "string",
                0,
                "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        let data = count(object, "data") + count(object, "binaryData");
        vec![name(object), data.into(), object_age(object, now).into()]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct Secrets;

impl Strategy for Secrets {
    fn default(&self, secret: &mut Value) {
        or(secret, "type", "Opaque");
        // What is written as text is kept as bytes.
        if let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|s| s.remove("stringData")) {
            use base64::Engine as _;
            for (key, text) in texts {
                let bytes = text.as_str().unwrap_or_default();
                secret["data"][key] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
            }
        }
    }

    fn validate(&self, secret: &Value, _: &Context) -> ErrorList {
        let mut errors = validate_data(secret, &["data"]);
        let data = Path::new("data");
        let needs = |errors: &mut ErrorList, key: &'static str| {
            if at(secret, &["data", key]).is_none() {
                errors.push(Error::required(&data.key(key), ""));
            }
        };
        let needs_json = |errors: &mut ErrorList, key: &'static str| match at(secret, &["data", key]) {
            Some(Value::String(text)) => {
                if let Some(why) = not_an_object(text) {
                    errors.push(Error::invalid(&data.key(key), "<secret contents redacted>", why));
                }
            }
            _ => errors.push(Error::required(&data.key(key), "")),
        };
        match text(secret, &["type"]) {
            "kubernetes.io/service-account-token" => {
                let account =
                    text(secret, &["metadata", "annotations", "kubernetes.io/service-account.name"]);
                if account.is_empty() {
                    let path =
                        Path::new("metadata").child("annotations").key("kubernetes.io/service-account.name");
                    errors.push(Error::required(&path, ""));
                }
            }
            "kubernetes.io/dockercfg" => needs_json(&mut errors, ".dockercfg"),
            "kubernetes.io/dockerconfigjson" => needs_json(&mut errors, ".dockerconfigjson"),
            "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(|key| needs(&mut errors, key)),
            "kubernetes.io/ssh-auth" => needs(&mut errors, "ssh-privatekey"),
            "kubernetes.io/basic-auth"
                if ["username", "password"].iter().all(|key| at(secret, &["data", key]).is_none()) =>
            {
                errors.push(Error::required(&data.key("username"), ""));
                errors.push(Error::required(&data.key("password"), ""));
            }
            _ => {}
        }
        errors
    }

    fn validate_update(&self, secret: &Value, old: &Value, context: &Context) -> ErrorList {
        let mut errors = ErrorList::default();
        if secret["type"] != old["type"] {
            errors.push(Error::invalid(&Path::new("type"), text(secret, &["type"]), "field is immutable"));
        }
        errors.extend(validate_immutable(secret, old, &["data"]));
        errors.extend(self.validate(secret, context));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Type",
                "string",
                0,
                "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
            ),
            column(
                "Data",
                "string",
                0,
                "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, secret: &Value, now: Time) -> Vec<Value> {
        vec![
            name(secret),
            text(secret, &["type"]).into(),
            count(secret, "data").into(),
            object_age(secret, now).into(),
        ]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[("type", |secret| text(secret, &["type"]).into())]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Why bytes, as base64, are not a JSON object, as Go says it.
fn not_an_object(data: &str) -> Option<String> {
    use base64::Engine as _;
    use schema::decode::{FieldValidation, free_json};
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    let kind = match free_json(&bytes, FieldValidation::Ignore) {
        Err(error) => return Some(error.0),
        Ok(decoded) => match decoded.value {
            Value::Object(_) | Value::Null => return None,
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
        },
    };
    Some(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
}

pub(super) struct ServiceAccounts;

/// Of a reference to a secret the name alone is kept.
fn keep_names(account: &mut Value) {
    each(account, "secrets", |secret| {
        if let Some(secret) = secret.as_object_mut() {
            secret.retain(|member, _| member == "name");
        }
    });
}

impl Strategy for ServiceAccounts {
    fn columns(&self) -> &'static [Column] {
        &[NAME, AGE]
    }

    fn cells(&self, account: &Value, now: Time) -> Vec<Value> {
        vec![name(account), object_age(account, now).into()]
    }

    fn prepare_for_create(&self, account: &mut Value, _: &Context) {
        keep_names(account);
    }

    fn prepare_for_update(&self, account: &mut Value, _: &Value, _: &Context) {
        keep_names(account);
    }

    fn warnings(&self, account: &Value, old: Option<&Value>, _: &Context) -> Vec<String> {
        const MARK: &str = "kubernetes.io/enforce-mountable-secrets";
        let marked = |account: &Value| at(account, &["metadata", "annotations", MARK]).is_some();
        if !marked(account) || old.is_some_and(marked) {
            return Vec::new();
        }
        let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        vec![format!("metadata.annotations[{MARK}]: {why}")]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct EndpointsLists;

impl Strategy for EndpointsLists {
    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        endpoints_validation::validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context) -> ErrorList {
        endpoints_validation::validate_update(object, old)
    }

    fn default(&self, object: &mut Value) {
        each(object, "subsets", |subset| each(subset, "ports", |port| or(port, "protocol", "TCP")));
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Endpoints",
                "string",
                0,
                "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        let mut all = Vec::new();
        for subset in list(object, &["subsets"]) {
            let ips = || list(subset, &["addresses"]).iter().map(|a| text(a, &["ip"]));
            match list(subset, &["ports"]) {
                [] => all.extend(ips().map(str::to_owned)),
                ports => all.extend(
                    ports.iter().flat_map(|port| ips().map(move |ip| format!("{ip}:{}", port["port"]))),
                ),
            }
        }
        let shown = joined(all.iter().take(3).map(String::as_str), "<none>");
        let shown = if all.len() > 3 { format!("{shown} + {} more...", all.len() - 3) } else { shown };
        vec![name(object), shown.into(), object_age(object, now).into()]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct LimitRanges;

impl Strategy for LimitRanges {
    fn prepare_for_create(&self, object: &mut Value, _: &Context) {
        if text(object, &["metadata", "name"]).is_empty() {
            object["metadata"]["name"] = object["metadata"]["uid"].clone();
        }
    }

    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        quota_validation::validate_limit_range(&typed(object))
    }

    fn validate_update(&self, object: &Value, _: &Value, context: &Context) -> ErrorList {
        self.validate(object, context)
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| {
            each(spec, "limits", |limit| {
                if limit["type"] != "Container" {
                    return;
                }
                // Limits from the maximum, requests from limits, then from the minimum.
                for (from, to) in
                    [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")]
                {
                    for (resource, quantity) in limit[from].as_object().cloned().unwrap_or_default() {
                        absent_or(limit, to, json!({}));
                        absent_or(&mut limit[to], &resource, quantity);
                    }
                }
            });
        });
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Created At",
                "date",
                0,
                "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, _: Time) -> Vec<Value> {
        vec![name(object), object["metadata"]["creationTimestamp"].clone()]
    }

    fn has_generation(&self) -> bool {
        false
    }
}
