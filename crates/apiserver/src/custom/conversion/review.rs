//! ConversionReview: what a webhook is asked, and what of its answer counts. Pure.

use super::api_version;
use crate::custom::accessor::go_type;
use apimachinery::field::{ErrorList, Path};
use apimachinery::json;
use apimachinery::meta::validation::{validate_annotations, validate_labels};
use apimachinery::quote::quote;
use apimachinery::value::Value;
use std::collections::BTreeMap;

const GROUP: &str = "apiextensions.k8s.io";

/// The first version of reviews that both sides know.
pub(super) fn version_of(offered: &[String]) -> Result<&str, String> {
    let found = offered.iter().find(|v| matches!(v.as_str(), "v1" | "v1beta1"));
    found.map(String::as_str).ok_or_else(|| "no supported conversion review versions".into())
}

/// The review that is sent.
pub(super) fn request(version: &str, uid: &str, objects: &[&Value], to: &str) -> Value {
    json!({
        "kind": "ConversionReview", "apiVersion": format!("{GROUP}/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
    })
}

/// The objects of an answer, which has to be one to this request.
pub(super) fn answered(version: &str, uid: &str, answer: &mut Value) -> Result<Vec<Value>, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if version == "v1" {
        let (have, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
        if have != format!("{GROUP}/v1") || kind != "ConversionReview" {
            return Err(format!(
                "expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {}, Kind={kind}",
                if have.contains('/') { have } else { format!("/{have}") }
            ));
        }
    }
    let response = &mut answer["response"];
    if !response.is_object() {
        return Err("no response provided".into());
    }
    if version == "v1" {
        let have = text(&response["uid"]);
        if have != uid {
            return Err(format!("expected response.uid={}, got {}", quote(uid), quote(&have)));
        }
    }
    let result = &response["result"];
    let status = text(&result["status"]);
    if status != "Success" {
        let message = text(&result["message"]);
        return Err(match message.as_str() {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            _ => message,
        });
    }
    Ok(match response["convertedObjects"].take() {
        Value::Array(objects) => objects,
        _ => Vec::new(),
    })
}

/// The converted object with the metadata of the original one, of which only labels and annotations may change; or what
/// is wrong with it, to be put behind the name of the webhook.
pub(super) fn accept(original: &Value, mut converted: Value, to: &str) -> Result<Value, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if api_version(&converted) != to {
        return Err(format!(
            "returned invalid object at index 0: invalid groupVersion (expected {to}, received {})",
            api_version(&converted)
        ));
    }
    let (wanted, kind) = (text(&original["kind"]), text(&converted["kind"]));
    if kind != wanted {
        return Err(format!(
            "returned invalid object at index 0: invalid kind (expected {wanted}, received {kind})"
        ));
    }
    for (what, key) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let (was, is) = (text(&original["metadata"][key]), text(&converted["metadata"][key]));
        if was != is {
            return Err(format!("returned invalid object: must have the same {what}: {was} != {is}"));
        }
    }
    let metadata =
        metadata(original, &converted).map_err(|why| format!("returned invalid metadata: {why}"))?;
    converted["metadata"] = metadata;
    Ok(converted)
}

fn metadata(original: &Value, converted: &Value) -> Result<Value, String> {
    let given = match converted.get("metadata") {
        None => return Err("missing metadata in converted object".into()),
        Some(Value::Object(map)) => map,
        Some(other) => {
            return Err(format!("invalid metadata of type {} in converted object", go_type(other)));
        }
    };
    let mut metadata = original["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let new = match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
                continue;
            }
            Some(Value::Object(map)) => map,
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{field} of type {} in converted object",
                    go_type(other)
                ));
            }
        };
        let mut texts = BTreeMap::new();
        for (name, value) in new {
            let Value::String(text) = value else {
                let ty = go_type(value);
                return Err(format!(
                    "metadata.{field}[{name}] must be a string, but is {ty} in converted object"
                ));
            };
            texts.insert(name.to_string(), text.clone());
        }
        if metadata.get(field).and_then(Value::as_object).is_none_or(|old| old != new) {
            let at = Path::new("metadata");
            let errors: ErrorList = match field {
                "labels" => validate_labels(&texts, &at.child("labels")),
                _ => validate_annotations(&texts, &at.child("annotation")),
            };
            if let Some(why) = errors.aggregate() {
                return Err(why);
            }
        }
        metadata.insert(field, Value::Object(new.clone()));
    }
    Ok(Value::Object(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(answer: Value, expected: Expect) {
        let original = json!({"apiVersion": "e.com/v1", "kind": "Foo", "spec": {"a": 1},
            "metadata": {"name": "x", "uid": "u", "labels": {"l": "1"}, "resourceVersion": "5"}});
        let mut answer = answer;
        let outcome = answered("v1", "7", &mut answer)
            .and_then(|mut objects| accept(&original, objects.pop().unwrap_or_default(), "e.com/v2"));
        expected.assert_eq(&outcome.map_or_else(|why| why, |object| object["metadata"].to_string()));
    }

    fn review(object: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "7", "result": {"status": "Success"}, "convertedObjects": [object]}})
    }

    fn object(metadata: Value) -> Value {
        review(json!({"apiVersion": "e.com/v2", "kind": "Foo", "metadata": metadata}))
    }

    #[test]
    fn answers_are_judged() {
        check(
            json!({"kind": "Foo"}),
            expect![
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=Foo"
            ],
        );
        check(
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}),
            expect!["no response provided"],
        );
        let mut failed = review(json!({}));
        failed["response"]["result"] = json!({"status": "Failure", "message": "no way"});
        check(failed.clone(), expect!["no way"]);
        failed["response"]["result"] = json!({"status": "Failure"});
        check(failed.clone(), expect!["response.result.status was 'Failure', not 'Success'"]);
        failed["response"]["uid"] = "8".into();
        check(failed, expect![[r#"expected response.uid="7", got "8""#]]);
        check(
            review(json!({"apiVersion": "e.com/v1", "kind": "Foo"})),
            expect![
                "returned invalid object at index 0: invalid groupVersion (expected e.com/v2, received e.com/v1)"
            ],
        );
        check(
            review(json!({"apiVersion": "e.com/v2", "kind": "Bar"})),
            expect!["returned invalid object at index 0: invalid kind (expected Foo, received Bar)"],
        );
        check(
            object(json!({"name": "y", "uid": "u"})),
            expect!["returned invalid object: must have the same name: x != y"],
        );
        check(
            object(json!({"name": "x"})),
            expect!["returned invalid object: must have the same UID: u != "],
        );
        check(
            object(json!({"name": "x", "uid": "u", "labels": {"l": 1}})),
            expect![
                "returned invalid metadata: metadata.labels[l] must be a string, but is int64 in converted object"
            ],
        );
        check(
            object(json!({"name": "x", "uid": "u", "labels": []})),
            expect![
                "returned invalid metadata: invalid metadata.labels of type []interface {} in converted object"
            ],
        );
        check(
            object(json!({"name": "x", "uid": "u", "labels": {"l": "not valid"}})),
            expect![[
                r#"returned invalid metadata: metadata.labels: Invalid value: "not valid": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#
            ]],
        );
    }

    #[test]
    fn of_metadata_labels_and_annotations_count() {
        check(
            object(json!({"name": "x", "uid": "u", "resourceVersion": "9", "annotations": {"a": "b"}})),
            expect![[r#"{"annotations":{"a":"b"},"name":"x","resourceVersion":"5","uid":"u"}"#]],
        );
        check(
            object(json!({"name": "x", "uid": "u", "labels": {"l": "2"}, "finalizers": ["f"]})),
            expect![[r#"{"labels":{"l":"2"},"name":"x","resourceVersion":"5","uid":"u"}"#]],
        );
    }
}
