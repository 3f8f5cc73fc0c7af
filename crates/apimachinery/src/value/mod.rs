//! `Value` trees: the form in which objects are defaulted, pruned, patched and converted.
//! Walks by path, and JSON text exactly as Go's `encoding/json` writes it.

#[doc(hidden)]
pub mod literal;
mod map;
mod serde;
mod tree;

use crate::decode::{Decode, Tree};
pub use map::{Entry, IntoIter, Iter, IterMut, Key, Map};
pub use serde::{from_value, to_value};
pub(crate) use serde::{is_raw, raw};
pub use serde_json::Number;
use std::io;
pub use tree::{Index, Value};

/// The value at `path`, if every step on the way is an object that has the next.
pub fn get_path<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.as_object()?.get(key))
}

/// Like [`get_path`], to be edited.
pub fn get_path_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, key| value.as_object_mut()?.get_mut(key))
}

/// The string at `path`; upstream's `NestedString`, with anything else read as absent.
pub fn nested_str<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    get_path(value, path)?.as_str()
}

/// The integer at `path`.
pub fn nested_i64(value: &Value, path: &[&str]) -> Option<i64> {
    get_path(value, path)?.as_i64()
}

/// The boolean at `path`.
pub fn nested_bool(value: &Value, path: &[&str]) -> Option<bool> {
    get_path(value, path)?.as_bool()
}

/// The list at `path`.
pub fn nested_array<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Vec<Value>> {
    get_path(value, path)?.as_array()
}

/// The object at `path`.
pub fn nested_object<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Map> {
    get_path(value, path)?.as_object()
}

/// The typed form of an object, without `metadata.managedFields`: they are long, and only those read them who settle
/// ownership, on the tree. As in Go, a null member is an absent one.
pub fn typed<T: Decode>(object: &Value) -> Result<T, serde_json::Error> {
    T::from_tree(Tree::without(object, &["metadata", "managedFields"]))
}

/// The typed metadata of an object, managed fields included but for the sets in them.
pub fn typed_metadata<T: Decode>(object: &Value) -> Result<T, serde_json::Error> {
    T::from_tree(Tree::without(&object["metadata"], &["managedFields", "fieldsV1"]))
}

/// The object that `value` is; whatever else it was gives way to an empty one.
pub fn as_object_mut_or_insert(value: &mut Value) -> &mut Map {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

/// Puts `new` at `path`, making the objects on the way. An empty path replaces the whole.
pub fn set_path(value: &mut Value, path: &[&str], new: Value) {
    let mut at = value;
    for key in path {
        at = as_object_mut_or_insert(at).entry(*key).or_insert(Value::Null);
    }
    *at = new;
}

/// Takes away what is at `path`, and returns it.
pub fn remove_path(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    get_path_mut(value, parents)?.as_object_mut()?.remove(last)
}

/// JSON text as upstream's API server writes it: `<`, `>`, `&` and the two line separators escaped,
/// floats in Go's form. Map keys come in the serializer's order (sorted, for `Value` and `BTreeMap`).
pub fn to_json_vec<T: ::serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    write_json(&mut out, value)?;
    Ok(out)
}

/// Like [`to_json_vec`], as text.
pub fn to_json_string<T: ::serde::Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    String::from_utf8(to_json_vec(value)?).map_err(::serde::ser::Error::custom)
}

/// Like [`to_json_vec`], into a writer.
pub fn write_json<W: io::Write, T: ::serde::Serialize + ?Sized>(
    out: W,
    value: &T,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, GoFormatter))
}

/// Writes the text of [`to_json_vec`] from any `serde_json::Serializer`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GoFormatter;

impl serde_json::ser::Formatter for GoFormatter {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(go_float(value).as_bytes())
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        let magnitude = value.abs();
        if value != 0.0 && !(1e-6..1e21).contains(&magnitude) {
            writer.write_all(go_exponent(format!("{value:e}")).as_bytes())
        } else {
            write!(writer, "{value}")
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let bytes = text.as_bytes();
        let mut written = 0;
        let mut at = 0;
        while at < bytes.len() {
            let (escape, length) = match bytes[at] {
                b'<' => (&b"\\u003c"[..], 1),
                b'>' => (&b"\\u003e"[..], 1),
                b'&' => (&b"\\u0026"[..], 1),
                0xe2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => (&b"\\u2028"[..], 3),
                0xe2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => (&b"\\u2029"[..], 3),
                _ => {
                    at += 1;
                    continue;
                }
            };
            writer.write_all(&bytes[written..at])?;
            writer.write_all(escape)?;
            at += length;
            written = at;
        }
        writer.write_all(&bytes[written..])
    }
}

/// A float as Go's `encoding/json` writes it: an exponent only below 1e-6 and from 1e21 on.
pub fn go_float(value: f64) -> String {
    let magnitude = value.abs();
    if value != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        go_exponent(format!("{value:e}"))
    } else {
        format!("{value}")
    }
}

/// A float as Go's `%g` writes it.
pub fn go_general_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..6).contains(&exponent) => {
            format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => format!("{value}"),
    }
}

/// Go writes the sign of a positive exponent.
fn go_exponent(text: String) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) if !exponent.starts_with('-') => format!("{mantissa}e+{exponent}"),
        _ => text,
    }
}

/// How deep objects and lists are nested in JSON text. To be asked before parsing: recursion over
/// hostile input ends in a stack overflow. The text need not be valid.
pub fn json_depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn floats_are_written_as_gos_g_does() {
        for (value, want) in [
            (1.0, "1"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (123_456.7, "123456.7"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(go_general_float(value), want);
        }
    }

    #[test]
    fn typed_objects_lack_managed_fields_and_nulls() {
        use crate::meta::{ObjectMeta, PartialObjectMetadata};
        let object = json!({"kind": "A", "apiVersion": null, "metadata": {
            "name": "a", "labels": null,
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
        }});
        let whole: PartialObjectMetadata = typed(&object).unwrap();
        assert_eq!((whole.metadata.name.as_str(), whole.metadata.managed_fields.len()), ("a", 0));
        let meta: ObjectMeta = typed_metadata(&object).unwrap();
        assert_eq!(meta.managed_fields[0].manager, "m");
        assert_eq!(meta.managed_fields[0].fields_v1, None);
    }

    #[test]
    fn writes_json_as_go_does() {
        for (value, want) in [
            (
                json!({"b": "<a & b>", "a": "\u{2028}é\u{2029}\"\\\u{1}\u{8}"}),
                r#"{"a":"\u2028é\u2029\"\\\u0001\b","b":"\u003ca \u0026 b\u003e"}"#,
            ),
            (
                json!([1.0, -0.0, 0.1, 1e20, 1e21, 1.5e-7, 123456789.5]),
                "[1,-0,0.1,100000000000000000000,1e+21,1.5e-7,123456789.5]",
            ),
            (json!([null, true, -5, u64::MAX]), "[null,true,-5,18446744073709551615]"),
            (json!({"<": {}}), r#"{"\u003c":{}}"#),
        ] {
            assert_eq!(to_json_string(&value).unwrap(), want);
        }
    }

    #[test]
    fn walks_and_edits() {
        let mut value = json!({"a": {"b": [1], "c": "x", "n": 3}});
        assert_eq!(nested_str(&value, &["a", "c"]), Some("x"));
        assert_eq!(nested_i64(&value, &["a", "n"]), Some(3));
        assert_eq!(get_path(&value, &["a", "b", "c"]), None);
        set_path(&mut value, &["a", "c", "d"], json!(true));
        assert_eq!(remove_path(&mut value, &["a", "b"]), Some(json!([1])));
        assert_eq!(value, json!({"a": {"c": {"d": true}, "n": 3}}));
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        for (text, want) in [("1", 0), ("[]", 1), (r#"{"a":[{"b":"[[[\"[["}]}"#, 3), ("]]][[", 2)] {
            assert_eq!(json_depth(text.as_bytes()), want, "{text}");
        }
    }
}
