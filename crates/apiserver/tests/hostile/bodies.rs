//! Trees as bytes: in the encodings that a server may be sent, then damaged.

use crate::dice::Dice;
use crate::trees;
use apimachinery::value::Value;

/// A tree in one of the encodings, with the media type that it has by right.
pub fn encoded(dice: &mut Dice, tree: &Value, ty: Option<schema::TypeId>) -> (&'static str, Vec<u8>) {
    let text = |name: &str| tree[name].as_str().unwrap_or_default().to_owned();
    match dice.below(8) {
        0 | 1 => ("application/yaml", yaml(dice, tree)),
        2 | 3 => match ty {
            Some(ty) => {
                let bytes = api::protobuf().encode(ty, tree, &text("kind"), &text("apiVersion"));
                ("application/vnd.kubernetes.protobuf", bytes)
            }
            None => ("application/vnd.kubernetes.protobuf", [b"k8s\0", dice.bytes(100).as_slice()].concat()),
        },
        4 => ("application/cbor", cbor(tree)),
        _ => ("application/json", tree.to_string().into_bytes()),
    }
}

fn yaml(dice: &mut Dice, tree: &Value) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(&schema::encode::yaml(tree)).into_owned();
    match dice.below(8) {
        // Anchors that refer to each other, which would be a great deal if it were written out.
        0 => {
            text.push_str("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
            for i in 1..12 {
                let refer = format!("*a{}, ", i - 1).repeat(9);
                text.push_str(&format!("a{i}: &a{i} [{}]\n", refer.trim_end_matches(", ")));
            }
        }
        1 => text.push_str("---\nkind: Second\n"),
        2 => text.push_str("? [a, b]\n: c\n"),
        3 => text.push_str("t: !!binary \"====\"\nn: !!int x\nf: .inf\n<<: *nothing\n"),
        4 => text.push_str("1: 2\ntrue: false\n~: x\n2001-01-01: y\n0o17: z\n"),
        _ => {}
    }
    text.into_bytes()
}

/// The tree as CBOR, by the shortest way.
fn cbor(tree: &Value) -> Vec<u8> {
    fn head(out: &mut Vec<u8>, major: u8, n: u64) {
        out.push(major << 5 | 27);
        out.extend_from_slice(&n.to_be_bytes());
    }
    fn put(out: &mut Vec<u8>, tree: &Value) {
        match tree {
            Value::Null => out.push(0xf6),
            Value::Bool(b) => out.push(0xf4 + u8::from(*b)),
            Value::Number(n) => match (n.as_u64(), n.as_i64()) {
                (Some(n), _) => head(out, 0, n),
                (_, Some(n)) => head(out, 1, !n as u64),
                _ => {
                    out.push(0xfb);
                    out.extend_from_slice(&n.as_f64().unwrap_or(0.0).to_be_bytes());
                }
            },
            Value::String(text) => {
                head(out, 2, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
            }
            Value::Array(items) => {
                head(out, 4, items.len() as u64);
                items.iter().for_each(|item| put(out, item));
            }
            Value::Object(members) => {
                head(out, 5, members.len() as u64);
                for (key, member) in members {
                    head(out, 2, key.len() as u64);
                    out.extend_from_slice(key.as_bytes());
                    put(out, member);
                }
            }
        }
    }
    let mut out = vec![0xd9, 0xd9, 0xf7];
    put(&mut out, tree);
    out
}

/// Damages bytes, or leaves them.
pub fn damaged(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    if !dice.once_in(4) {
        return bytes;
    }
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(12) {
            0 => bytes.truncate(at),
            1 | 2 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            3 if !bytes.is_empty() => bytes[at] = dice.next() as u8,
            4 => drop(bytes.splice(at..at, dice.bytes(12))),
            5 => drop(bytes.splice(at..at, [0xff, 0xfe, 0xc3, 0x28])),
            6 => {
                let end = (at + dice.below(60)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            7 => drop(bytes.drain(at..(at + dice.below(60)).min(bytes.len()))),
            8 => bytes = numbered(dice, bytes),
            9 => bytes = nested(dice, &bytes),
            10 => bytes.extend_from_slice(b" {\"kind\":\"x\"} "),
            _ => bytes = dice.bytes(400),
        }
    }
    bytes
}

/// Puts a number that no machine has where the first number of a text is.
fn numbered(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    const NUMBERS: &[&str] = &[
        "1e999",
        "-1e999",
        "0.0000000000000000001e-400",
        "01",
        "--1",
        "1.",
        "0x1",
        "1_000",
        "-",
        "1e",
        ".5",
    ];
    if let Some(at) = bytes.iter().position(u8::is_ascii_digit) {
        let long = "9".repeat(dice.below(5000));
        let number = if dice.once_in(3) { long.as_str() } else { dice.pick(NUMBERS) };
        drop(bytes.splice(at..=at, number.bytes()));
    }
    bytes
}

/// Puts a text so deep into others that a careless reader runs out of stack.
fn nested(dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
    let depth = [50, 1_000, 9_990, 10_010, 200_000][dice.below(5)];
    let (open, close): (&[u8], &[u8]) = match dice.below(5) {
        0 => (b"[", b"]"),
        1 => (b"{\"a\":", b"}"),
        2 => (b"{\"spec\":", b"}"),
        3 => (b"- ", b""),
        // A length-delimited field of a message, an array of CBOR.
        _ => (&[0x81], b""),
    };
    [open.repeat(depth).as_slice(), bytes, close.repeat(depth).as_slice()].concat()
}

/// A body that has no tree.
pub fn shapeless(dice: &mut Dice) -> Vec<u8> {
    match dice.below(7) {
        0 => Vec::new(),
        1 => dice.bytes(2_000),
        2 => b"\xef\xbb\xbf{}".to_vec(),
        3 => vec![b'"'; dice.below(100)],
        4 => vec![b'a'; 3 << 20 | dice.below(2)],
        5 => format!("{{\"a\":{:?}}}", trees::text(dice)).into_bytes(),
        _ => [b"k8s\0", dice.bytes(300).as_slice()].concat(),
    }
}
