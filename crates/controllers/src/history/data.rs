//! What a ControllerRevision holds, byte for byte as upstream writes it: a patch that replaces the pod template, as
//! JSON with sorted keys and Go's escapes. Pure.
//!
//! The bytes matter: they are compared with those of revisions that upstream wrote, and their hash is the revision's
//! name. A difference would roll every pod of the set.

use api::core::v1::PodTemplateSpec;
use apimachinery::decode::Decode as _;
use apimachinery::json;
use apimachinery::rand_name::safe_encode_string;
use apimachinery::value::to_json_string;
use apimachinery::value::{Map, Value};

/// The patch that sets this template.
pub(crate) fn of_template(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a patch sets.
pub(crate) fn template(data: &Value) -> Option<Value> {
    let mut template = data.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    Some(template)
}

/// The same, typed.
pub(crate) fn typed_template(data: &Value) -> Option<PodTemplateSpec> {
    PodTemplateSpec::from_value(&template(data)?).ok()
}

/// JSON as Go's `encoding/json` writes a map: keys sorted, `<`, `>` and `&` escaped.
pub(crate) fn text(value: &Value) -> String {
    // Keys are strings: it cannot fail.
    to_json_string(&sorted(value)).unwrap_or_default()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            members.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect::<Map>().into()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

/// The hash of a revision: FNV-1 (32 bits) of its data and the number of collisions. Upstream: `HashControllerRevision`.
pub(crate) fn hash(text: &str, collisions: Option<i32>) -> String {
    let mut sum: u32 = 0x811c_9dc5;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            sum = sum.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
        }
    };
    feed(text.as_bytes());
    if let Some(collisions) = collisions {
        feed(collisions.to_string().as_bytes());
    }
    safe_encode_string(&sum.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn as_upstream_writes_it() {
        let template = json!({
            "metadata": {"labels": {"b": "2", "a": "1"}},
            "spec": {"containers": [{"name": "c", "args": ["<&>", "tab\t\u{1}"], "image": "i"}]},
        });
        let data = of_template(&template);
        expect![[r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"a":"1","b":"2"}},"spec":{"containers":[{"args":["\u003c\u0026\u003e","tab\t\u0001"],"image":"i","name":"c"}]}}}}"#]].assert_eq(&text(&data));
        assert_eq!(super::template(&data), Some(template));
    }

    #[test]
    fn hashes_are_fnv_1_in_the_safe_alphabet() {
        for (input, want) in [("", "65bb57b6b5"), ("a", "d8bfb88b")] {
            assert_eq!(hash(input, None), want, "{input}");
        }
        assert_ne!(hash("x", None), hash("x", Some(0)));
    }
}
