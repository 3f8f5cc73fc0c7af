//! Masks what differs from run to run: identities, revisions, times of day, addresses and ports that were given out,
//! generated names, tokens.

use regex::{Captures, Regex};
use std::sync::LazyLock;

static MASKS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let mask = |pattern: &str, by| (Regex::new(pattern).unwrap(), by);
    vec![
        mask(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
        mask(r#"(\\*"resourceVersion\\*": ?\\*")[1-9]\d*"#, "$1<rv>"),
        mask(r"(record \()\d+\)", "$1<rv>)"),
        mask(r"\bA_[a-z0-9]{5}\b", "A_<gen>"),
        mask(r#"(?m)^(\s*resourceVersion: )"[1-9]\d*""#, r#"$1"<rv>""#),
        mask(r"(ResourceVersion in record: |ResourceVersion in object meta: |current: )\d+", "$1<rv>"),
        mask(r#""continue":"[^"]+""#, r#""continue":"<continue>""#),
        mask(r#"(kube-api-access-)[a-z0-9]{5}\b"#, "$1<gen>"),
        mask(r#"("gen-)[a-z0-9]{5}\b"#, "$1<gen>"),
        mask(r"eyJhbGciOi[\w-]+\.[\w-]+\.[\w-]+", "<jwt>"),
        mask(r#""serverAddress":"[^"]*""#, r#""serverAddress":"<address>""#),
        mask(r"10\.96\.\d+\.\d+", "<ip>"),
        mask(r#"("nodePort":|nodePort: |"healthCheckNodePort":)3[0-2]\d{3}\b"#, "$1<port>"),
        mask(r":3[0-2]\d{3}/(TCP|UDP)", ":<port>/$1"),
    ]
});
static CELL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""\d+(ms|s)""#).unwrap());
/// Ages of what requests bring: they grow from day to day.
static YEARS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b\d+y(\d+d)?\b").unwrap());
static TIME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").unwrap());

/// Whether a time is about now; what requests bring lies far away.
fn is_now(text: &str) -> bool {
    let Ok(time) = text.parse::<jiff::Timestamp>() else { return false };
    (time.as_second() - jiff::Timestamp::now().as_second()).abs() < 3 * 86400
}

pub fn text(text: &str) -> String {
    let mut out = TIME
        .replace_all(text, |c: &Captures<'_>| match is_now(&c[0]) {
            true => "<now>".to_owned(),
            false => c[0].to_owned(),
        })
        .into_owned();
    for (mask, by) in MASKS.iter() {
        out = mask.replace_all(&out, *by).into_owned();
    }
    out
}

/// Masks JSON; a bare number becomes text where it must be masked.
pub fn json(json: &str) -> String {
    let out = text(json).replace(":<port>,", r#":"<port>","#).replace(":<port>}", r#":"<port>"}"#);
    let out = sort_managers(&out);
    if !out.contains(r#""kind":"Table""#) {
        return out;
    }
    YEARS.replace_all(&CELL.replace_all(&out, r#""<age>""#), "<years>").into_owned()
}

/// Puts managed fields into an order that does not depend on whether a second went by between two writes.
fn sort_managers(json: &str) -> String {
    const FIELD: &str = r#""managedFields":["#;
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(FIELD) {
        let (before, list) = rest.split_at(at + FIELD.len());
        out.push_str(before);
        let (mut depth, mut in_string, mut escaped, mut from) = (0, false, false, 0);
        let (mut entries, mut end) = (Vec::new(), list.len());
        for (i, byte) in list.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b']' if depth == 0 => {
                    end = i;
                    break;
                }
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        entries.push(list[from..=i].trim_start_matches(','));
                        from = i + 1;
                    }
                }
                _ => {}
            }
        }
        entries.sort_unstable();
        out.push_str(&entries.join(","));
        rest = &list[end..];
    }
    out + rest
}

/// One field of a message: its number, and its value as it stands.
enum Field<'a> {
    Bytes(u64, &'a [u8]),
    Other(&'a [u8]),
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn fields(bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let from = at;
        let key = varint(bytes, &mut at)?;
        match key & 7 {
            2 => {
                let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                found.push(Field::Bytes(key >> 3, bytes.get(at..at.checked_add(length)?)?));
                at += length;
                continue;
            }
            0 => drop(varint(bytes, &mut at)?),
            1 => at += 8,
            5 => at += 4,
            _ => return None,
        }
        found.push(Field::Other(bytes.get(from..at)?));
    }
    Some(found)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Rewrites a message, field by field.
fn rewrite(bytes: &[u8], of: impl Fn(u64, &[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for field in fields(bytes)? {
        match field {
            Field::Other(raw) => out.extend_from_slice(raw),
            Field::Bytes(number, value) => {
                let new = of(number, value);
                put(&mut out, number, new.as_deref().unwrap_or(value));
            }
        }
    }
    Some(out)
}

fn at_now(time: &[u8]) -> Option<Vec<u8>> {
    let mut at = 1;
    let seconds = (time.first() == Some(&8)).then(|| varint(time, &mut at)).flatten()?;
    let now = jiff::Timestamp::now().as_second() as u64;
    (seconds.abs_diff(now) < 3 * 86400).then(|| b"<now>".to_vec())
}

/// ObjectMeta: generated name, uid, revision, times, and the times of its managers.
fn object_meta(bytes: &[u8]) -> Option<Vec<u8>> {
    let masked = rewrite(bytes, |number, value| match number {
        5 => Some(b"<uid>".to_vec()),
        6 if !value.is_empty() => Some(b"<rv>".to_vec()),
        8 | 9 => at_now(value),
        17 => rewrite(value, |number, value| if number == 4 { at_now(value) } else { None }),
        _ => None,
    })?;
    let (mut managers, mut out) = (Vec::new(), Vec::new());
    for field in fields(&masked)? {
        match field {
            Field::Bytes(17, manager) => managers.push(manager),
            Field::Bytes(number, value) => put(&mut out, number, value),
            Field::Other(raw) => out.extend_from_slice(raw),
        }
    }
    managers.sort_unstable();
    managers.into_iter().for_each(|manager| put(&mut out, 17, manager));
    Some(out)
}

fn list_meta(bytes: &[u8]) -> Option<Vec<u8>> {
    rewrite(bytes, |number, value| match number {
        2 if !value.is_empty() => Some(b"<rv>".to_vec()),
        3 if !value.is_empty() => Some(b"<continue>".to_vec()),
        _ => None,
    })
}

fn object(bytes: &[u8]) -> Option<Vec<u8>> {
    rewrite(bytes, |number, value| match number {
        1 => object_meta(value).map(|meta| settled(&meta)),
        _ if holds_address(value) => Some(ip_free(value)),
        _ => Some(settled(value)),
    })
}

/// Masks identities and times wherever they stand, by something that is as long.
fn settled(bytes: &[u8]) -> Vec<u8> {
    static UID: LazyLock<regex::bytes::Regex> = LazyLock::new(|| {
        regex::bytes::Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap()
    });
    let mut out = UID.replace_all(bytes, [b'u'; 36].as_slice()).into_owned();
    for at in 0..out.len().saturating_sub(5) {
        if at_now(&out[at..at + 6]).is_some() {
            out[at + 1..at + 6].copy_from_slice(b"<now>");
        }
    }
    out
}

static ADDRESS: LazyLock<regex::bytes::Regex> =
    LazyLock::new(|| regex::bytes::Regex::new(r"(?s-u).10\.96\.\d+\.\d+").unwrap());

fn holds_address(value: &[u8]) -> bool {
    ADDRESS.is_match(value)
}

/// Addresses that were given out have a length of their own: what holds one is compared without it.
fn ip_free(value: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(value) {
        Ok(value) => text(value).into_bytes(),
        Err(_) => ADDRESS.replace_all(&settled(value), b"<ip>".as_slice()).into_owned(),
    }
}

/// What a `Status` says: its message, and those of its causes.
fn status(bytes: &[u8]) -> Option<Vec<u8>> {
    let masked = |value: &[u8]| Some(text(std::str::from_utf8(value).ok()?).into_bytes());
    rewrite(bytes, |number, value| match number {
        3 => masked(value),
        5 => rewrite(value, |number, value| match number {
            4 => rewrite(value, |number, value| if number == 2 { masked(value) } else { None }),
            _ => None,
        }),
        _ => None,
    })
}

/// Masks the events of a stream, each behind its length.
pub fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let Some((event, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        let masked = rewrite(event, |number, value| match number {
            2 => rewrite(value, |number, object| (number == 1).then(|| protobuf(object))),
            _ => None,
        });
        let masked = masked.unwrap_or_else(|| event.to_vec());
        out.extend_from_slice(&(masked.len() as u32).to_be_bytes());
        out.extend(masked);
        bytes = rest;
    }
    out
}

/// Masks an object, list or `Status` in its envelope; what is none stays as it is.
pub fn protobuf(bytes: &[u8]) -> Vec<u8> {
    let Some(message) = bytes.strip_prefix(b"k8s\0") else { return bytes.to_vec() };
    let is = |end: &[u8]| {
        let ends = |f: &Field<'_>| matches!(f, Field::Bytes(1, meta) if meta.ends_with(end));
        fields(message).is_some_and(|fields| fields.iter().any(ends))
    };
    let (list, failed) = (is(b"List"), is(b"\x12\x06Status"));
    let masked = rewrite(message, |number, raw| match (number, list) {
        (2, false) if failed => status(raw),
        (2, false) => object(raw),
        (2, true) => rewrite(raw, |number, value| match number {
            1 => list_meta(value),
            2 => object(value),
            _ => None,
        }),
        _ => None,
    });
    let mut out = b"k8s\0".to_vec();
    out.extend(masked.as_deref().unwrap_or(message));
    out
}
