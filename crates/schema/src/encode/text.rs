//! Scalars and free trees as Go's `encoding/json` writes them, straight into a buffer.

use apimachinery::value::Value;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes that do not stand for themselves inside a JSON string; `0xe2` begins the two line separators.
static SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut i = 0;
    while i < 0x20 {
        special[i] = true;
        i += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special[b'<' as usize] = true;
    special[b'>' as usize] = true;
    special[b'&' as usize] = true;
    special[0xe2] = true;
    special
};

/// How many bytes are looked at in one go.
const LANES: usize = 16;

/// Whether all bytes stand for themselves. No branches: the compiler makes vector instructions of it.
fn plain(bytes: &[u8; LANES]) -> bool {
    let special = |byte: u8| {
        (byte < 0x20)
            | (byte == b'"')
            | (byte == b'\\')
            | (byte == b'<')
            | (byte == b'>')
            | (byte == b'&')
            | (byte == 0xe2)
    };
    !bytes.iter().fold(false, |found, byte| found | special(*byte))
}

/// The place of the first byte from `from` on that does not stand for itself.
fn next_special(bytes: &[u8], mut from: usize) -> Option<usize> {
    while bytes.get(from..).and_then(<[u8]>::first_chunk).is_some_and(plain) {
        from += LANES;
    }
    let rest = bytes.get(from..).unwrap_or_default();
    Some(from + rest.iter().position(|byte| SPECIAL[usize::from(*byte)])?)
}

/// A JSON string with Go's HTML escaping.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let (mut from, mut at) = (0, 0);
    while let Some(i) = next_special(bytes, at) {
        at = i + 1;
        let byte = bytes[i];
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0xe2 => {
                let escape: &[u8] = match bytes.get(i + 1..i + 3) {
                    Some([0x80, 0xa8]) => b"\\u2028",
                    Some([0x80, 0xa9]) => b"\\u2029",
                    _ => continue,
                };
                out.extend_from_slice(&bytes[from..i]);
                out.extend_from_slice(escape);
                from = i + 3;
                at = from;
                continue;
            }
            _ => &[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]],
        };
        out.extend_from_slice(&bytes[from..i]);
        out.extend_from_slice(escape);
        from = i + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Any tree, keys sorted.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::String(text) => write_string(out, text),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), _, _) => write_integer(out, n),
            (_, Some(n), _) => out.extend_from_slice(n.to_string().as_bytes()),
            (_, _, Some(f)) => out.extend_from_slice(apimachinery::value::go_float(f).as_bytes()),
            _ => out.extend_from_slice(b"null"),
        },
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(out, item);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            out.push(b'{');
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(out, key);
                out.push(b':');
                write_value(out, value);
            }
            out.push(b'}');
        }
    }
}

/// Digits without an allocation.
pub(super) fn write_integer(out: &mut Vec<u8>, n: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}
