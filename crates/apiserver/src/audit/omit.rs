//! Objects without their managed fields: an object, the items of a list, the objects of a table. All other members stay as
//! they are, in their order.

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;

/// An object's members in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Writes an object with some members written otherwise, or left out where `edit` says so with nothing.
fn edited<'a>(
    out: &mut Vec<u8>,
    object: &'a RawValue,
    edit: impl Fn(&mut Vec<u8>, &str, &'a RawValue) -> Edit,
) -> Option<()> {
    let Ok(Members(members)) = serde_json::from_str(object.get()) else {
        // What is no object has no members.
        out.extend_from_slice(object.get().as_bytes());
        return Some(());
    };
    out.push(b'{');
    let mut first = true;
    for (name, value) in members {
        let mut member = Vec::new();
        match edit(&mut member, &name, value) {
            Edit::LeaveOut => continue,
            Edit::Keep => member.extend_from_slice(value.get().as_bytes()),
            Edit::Written => {}
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend(apimachinery::value::to_json_vec(&name).ok()?);
        out.push(b':');
        out.extend(member);
    }
    out.push(b'}');
    Some(())
}

enum Edit {
    Keep,
    LeaveOut,
    Written,
}

fn of_object(out: &mut Vec<u8>, object: &RawValue) -> Option<()> {
    edited(out, object, |out, name, value| match name {
        "metadata" => {
            let of_metadata = |_: &mut Vec<u8>, name: &str, _: &RawValue| match name {
                "managedFields" => Edit::LeaveOut,
                _ => Edit::Keep,
            };
            edited(out, value, of_metadata).map_or(Edit::Keep, |()| Edit::Written)
        }
        "items" => list(out, value, of_object),
        "rows" => list(out, value, |out, row| {
            edited(out, row, |out, name, value| match name {
                "object" => of_object(out, value).map_or(Edit::Keep, |()| Edit::Written),
                _ => Edit::Keep,
            })
        }),
        _ => Edit::Keep,
    })
}

fn list(out: &mut Vec<u8>, list: &RawValue, one: impl Fn(&mut Vec<u8>, &RawValue) -> Option<()>) -> Edit {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else { return Edit::Keep };
    out.push(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if one(out, item).is_none() {
            out.extend_from_slice(item.get().as_bytes());
        }
    }
    out.push(b']');
    Edit::Written
}

/// The document without managed fields; nothing when it is no JSON.
pub(super) fn managed_fields(json: &[u8]) -> Option<Vec<u8>> {
    let document: &RawValue = serde_json::from_slice(json).ok()?;
    let mut out = Vec::with_capacity(json.len());
    of_object(&mut out, document)?;
    Some(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn managed_fields_are_left_out() {
        let check = |json: &str, expected: &str| {
            let out = super::managed_fields(json.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(
            r#"{"kind":"A","metadata":{"name":"x","managedFields":[{"f":{}}],"a":1},"spec":{"managedFields":2}}"#,
            r#"{"kind":"A","metadata":{"name":"x","a":1},"spec":{"managedFields":2}}"#,
        );
        check(
            r#"{"items":[{"metadata":{"managedFields":[]}},{"metadata":null}],"metadata":{}}"#,
            r#"{"items":[{"metadata":{}},{"metadata":null}],"metadata":{}}"#,
        );
        check(
            r#"{"rows":[{"cells":["\u003c"],"object":{"metadata":{"managedFields":[],"z":0}}}]}"#,
            r#"{"rows":[{"cells":["\u003c"],"object":{"metadata":{"z":0}}}]}"#,
        );
        assert!(super::managed_fields(b"x").is_none());
    }
}
