//! Trees to bytes.

use super::{BASE64, Major, PREFIX};
use crate::row::{Shape, Type, TypeId};
use crate::table::Table;
use apimachinery::value::{Key, Map, Number, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An object of a type of the table.
pub fn encode(table: &Table, id: TypeId, value: &Value) -> Vec<u8> {
    let mut out = PREFIX.to_vec();
    Writer { table, out: &mut out }.typed(&Type::Ref(id), value);
    out
}

/// A tree of which no type is known.
pub fn encode_free(value: &Value) -> Vec<u8> {
    let mut out = PREFIX.to_vec();
    free(&mut out, value);
    out
}

/// A watch event around an object that is encoded already.
pub fn event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = PREFIX.to_vec();
    head(&mut out, Major::Map, 2);
    text(&mut out, "type");
    text(&mut out, kind);
    text(&mut out, "object");
    out.extend_from_slice(object);
    out
}

/// The head of an item, in the fewest bytes.
fn head(out: &mut Vec<u8>, major: Major, n: u64) {
    let first = (major as u8) << 5;
    let bytes = n.to_be_bytes();
    match n {
        0..24 => out.push(first | n as u8),
        24..0x100 => out.extend_from_slice(&[first | 24, n as u8]),
        0x100..0x1_0000 => {
            out.push(first | 25);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(first | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(first | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    head(out, Major::Bytes, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Members by their keys' encodings: the shorter first, for the length comes before the letters.
fn sorted(map: &Map) -> Vec<(&Key, &Value)> {
    let mut members: Vec<_> = map.iter().collect();
    members.sort_unstable_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    members
}

fn free(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(is) => out.push(0xf4 | u8::from(*is)),
        Value::Number(number) => integer_or_float(out, number),
        Value::String(content) => text(out, content),
        Value::Array(items) => {
            head(out, Major::Array, items.len() as u64);
            items.iter().for_each(|item| free(out, item));
        }
        Value::Object(map) => {
            head(out, Major::Map, map.len() as u64);
            for (name, member) in sorted(map) {
                text(out, name);
                free(out, member);
            }
        }
    }
}

fn integer_or_float(out: &mut Vec<u8>, number: &Number) {
    match (number.as_u64(), number.as_i64()) {
        (Some(n), _) => head(out, Major::Unsigned, n),
        // -1 is 0 here, -2 is 1.
        (None, Some(n)) => head(out, Major::Negative, !n as u64),
        (None, None) => float(out, number.as_f64().unwrap_or_default()),
    }
}

/// The smallest of the three widths that loses nothing.
fn float(out: &mut Vec<u8>, value: f64) {
    let single = value as f32;
    if f64::from(single).to_bits() != value.to_bits() {
        out.push(0xfb);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Some(half) = half(single) {
        out.push(0xf9);
        out.extend_from_slice(&half.to_be_bytes());
    } else {
        out.push(0xfa);
        out.extend_from_slice(&single.to_be_bytes());
    }
}

/// A number as binary16, if it is one.
fn half(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    match exponent {
        -127 if fraction == 0 => Some(sign),
        -14..=15 if fraction & 0x1fff == 0 => {
            Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16)
        }
        // Below the smallest normal one, the leading bit is written out.
        -24..=-15 => {
            let whole = fraction | 0x80_0000;
            let shift = (-exponent - 1) as u32;
            (whole.trailing_zeros() >= shift).then(|| sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}

struct Writer<'a> {
    table: &'a Table,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn typed(&mut self, ty: &Type, value: &Value) {
        match (ty, value) {
            (Type::Bytes, Value::String(encoded)) => match STANDARD.decode(encoded) {
                Ok(bytes) => {
                    head(self.out, Major::Tag, BASE64);
                    head(self.out, Major::Bytes, bytes.len() as u64);
                    self.out.extend_from_slice(&bytes);
                }
                Err(_) => text(self.out, encoded),
            },
            (Type::Double, Value::Number(number)) => float(self.out, number.as_f64().unwrap_or_default()),
            (Type::List(item), Value::Array(items)) => {
                head(self.out, Major::Array, items.len() as u64);
                items.iter().for_each(|value| self.typed(item, value));
            }
            (Type::Map(member), Value::Object(map)) => {
                head(self.out, Major::Map, map.len() as u64);
                for (name, value) in sorted(map) {
                    text(self.out, name);
                    self.typed(member, value);
                }
            }
            (Type::Ref(id), value) => self.row(*id, value),
            (_, value) => free(self.out, value),
        }
    }

    fn row(&mut self, id: TypeId, value: &Value) {
        let row = self.table.ty(id);
        match (&row.scalar, value) {
            (Some(scalar), value) if row.shape == Shape::Scalar => self.typed(scalar, value),
            (_, Value::Object(map)) => {
                head(self.out, Major::Map, map.len() as u64);
                for (name, value) in sorted(map) {
                    text(self.out, name);
                    match self.table.index(id, name) {
                        Some(field) => self.typed(&row.fields[field].ty, value),
                        None => free(self.out, value),
                    }
                }
            }
            (_, value) => free(self.out, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    fn check(value: Value, expected: Expect) {
        let hex: String = encode_free(&value)[3..].iter().map(|byte| format!("{byte:02x}")).collect();
        expected.assert_eq(&hex);
    }

    #[test]
    fn numbers() {
        check(
            json!([0, 23, 24, 255, 256, 65536, u64::MAX]),
            expect!["870017181818ff1901001a000100001bffffffffffffffff"],
        );
        check(json!([-1, -24, -25, i64::MIN]), expect!["84203738183b7fffffffffffffff"]);
        check(
            json!([0.0, -0.0, 1.5, 65504.0, 5.960464477539063e-8]),
            expect!["85f90000f98000f93e00f97bfff90001"],
        );
        check(json!([100000.0, 3.4028234663852886e38]), expect!["82fa47c35000fa7f7fffff"]);
        check(json!([1.1, 1e300]), expect!["82fb3ff199999999999afb7e37e43c8800759c"]);
    }

    #[test]
    fn keys_are_in_the_order_of_their_encodings() {
        check(json!({"aa": 1, "b": null, "": true, "ab": "x"}), expect!["a440f54162f6426161014261624178"]);
    }
}
