//! CustomResourceDefinitions as upstream keeps them in etcd: in v1beta1, which says once what all versions share and
//! which is no longer served.

use apimachinery::json;
use apimachinery::value::{Map, Value};

use super::ConversionRow;

const V1: &str = "apiextensions.k8s.io/v1";
const V1BETA1: &str = "apiextensions.k8s.io/v1beta1";

pub(super) const CONVERSIONS: &[ConversionRow] = &[
    ("apiextensions.k8s.io", "CustomResourceDefinition", V1, V1BETA1, to_v1beta1),
    ("apiextensions.k8s.io", "CustomResourceDefinition", V1BETA1, V1, from_v1beta1),
];

/// A version's member, and the spec's that stands for it when all versions have the same.
const SHARED: [(&str, &str); 4] = [
    ("subresources", "subresources"),
    ("schema", "validation"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

fn versions(spec: &mut Map) -> impl Iterator<Item = &mut Map> {
    spec.get_mut("versions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Printer columns spell their path differently.
fn rename_paths(columns: Option<&mut Value>, from: &str, to: &str) {
    let columns = columns.and_then(Value::as_array_mut).into_iter().flatten();
    for column in columns.filter_map(Value::as_object_mut) {
        if let Some(path) = column.remove(from) {
            column.insert(to, path);
        }
    }
}

fn to_v1beta1(mut object: Value) -> Value {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return object };
    // v1beta1's default is true.
    spec.entry("preserveUnknownFields").or_insert(Value::Bool(false));
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut)
        && let Some(Value::Object(mut webhook)) = conversion.remove("webhook")
    {
        for (from, to) in [
            ("clientConfig", "webhookClientConfig"),
            ("conversionReviewVersions", "conversionReviewVersions"),
        ] {
            conversion.extend(webhook.remove(from).map(|value| (to.to_owned(), value)));
        }
    }
    for version in versions(spec) {
        rename_paths(version.get_mut("additionalPrinterColumns"), "jsonPath", "JSONPath");
    }
    let Some(first) = versions(spec).next().map(|first| first.clone()) else { return object };
    spec.extend(first.get("name").map(|name| ("version".to_owned(), name.clone())));
    for (own, shared) in SHARED {
        if versions(spec).any(|version| version.get(own) != first.get(own)) {
            continue;
        }
        for version in versions(spec) {
            version.remove(own);
        }
        spec.extend(first.get(own).map(|value| (shared.to_owned(), value.clone())));
    }
    object
}

fn from_v1beta1(mut object: Value) -> Value {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return object };
    if let Some(name) = spec.remove("version")
        && versions(spec).next().is_none()
    {
        spec.insert("versions", json!([{ "name": name, "served": true, "storage": true }]));
    }
    for (own, shared) in SHARED {
        let Some(value) = spec.remove(shared) else { continue };
        for version in versions(spec) {
            version.insert(own, value.clone());
        }
    }
    for version in versions(spec) {
        rename_paths(version.get_mut("additionalPrinterColumns"), "JSONPath", "jsonPath");
    }
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    } else {
        // Absent is true there, and a CRD of that age means it.
        spec.insert("preserveUnknownFields", Value::Bool(true));
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        let webhook: Map = [
            ("webhookClientConfig", "clientConfig"),
            ("conversionReviewVersions", "conversionReviewVersions"),
        ]
        .into_iter()
        .filter_map(|(from, to)| Some((to.to_owned(), conversion.remove(from)?)))
        .collect();
        if !webhook.is_empty() {
            conversion.insert("webhook", webhook.into());
        }
    } else {
        spec.insert("conversion", json!({ "strategy": "None" }));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// With its keys in order, whether maps keep another one or not.
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut members: Vec<_> = map.iter().collect();
                members.sort_by_key(|(key, _)| *key);
                members.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }

    fn check(spec: Value, stored: Expect) {
        let object = json!({ "apiVersion": V1, "spec": spec });
        let there = to_v1beta1(object.clone());
        stored.assert_eq(&sorted(&there["spec"]).to_string());
        assert_eq!(from_v1beta1(there), object);
    }

    #[test]
    fn what_all_versions_share_stands_once() {
        let schema = json!({ "openAPIV3Schema": { "type": "object" } });
        check(
            json!({
                "conversion": { "strategy": "Webhook", "webhook": {
                    "clientConfig": { "url": "https://a" }, "conversionReviewVersions": ["v1"] } },
                "versions": [
                    { "name": "v2", "schema": schema, "subresources": { "status": {} },
                      "additionalPrinterColumns": [{ "name": "A", "jsonPath": ".spec.a" }] },
                    { "name": "v1", "schema": schema, "additionalPrinterColumns": [{ "name": "A", "jsonPath": ".spec.a" }] },
                ],
            }),
            expect![[
                r#"{"additionalPrinterColumns":[{"JSONPath":".spec.a","name":"A"}],"conversion":{"conversionReviewVersions":["v1"],"strategy":"Webhook","webhookClientConfig":{"url":"https://a"}},"preserveUnknownFields":false,"validation":{"openAPIV3Schema":{"type":"object"}},"version":"v2","versions":[{"name":"v2","subresources":{"status":{}}},{"name":"v1"}]}"#
            ]],
        );
    }
}
