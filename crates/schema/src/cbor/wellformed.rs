//! Whether bytes are one well-formed item within the limits that upstream sets. It is asked before anything is made of
//! them, without recursion: depth is the sender's choice.

use super::Major;
use super::fault::{Fault, Result, bad};
use super::read::{Head, Reader};

const MAX_DEPTH: usize = 10_000;
const MAX_ITEMS: u64 = 2_147_483_647;
const MAX_PAIRS: u64 = 2_097_152;

/// A list or map that is not at its end yet.
struct Open {
    major: Major,
    /// Items that are still to come; of those without an end the number that came.
    items: u64,
    endless: bool,
}

/// Checks a whole document.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let mut reader = Reader { bytes, at: 0 };
    let mut open: Vec<Open> = Vec::new();
    loop {
        match open.last_mut() {
            Some(Open { items: 0, endless: false, .. }) => {
                open.pop();
                if open.is_empty() {
                    break;
                }
                continue;
            }
            Some(innermost) if innermost.endless => {
                if reader.ends()? {
                    if innermost.major == Major::Map && innermost.items % 2 == 1 {
                        return bad("cbor: unexpected \"break\" code");
                    }
                    open.pop();
                    if open.is_empty() {
                        break;
                    }
                    continue;
                }
                innermost.items += 1;
                if innermost.major == Major::Map && innermost.items / 2 > MAX_PAIRS {
                    return too_many(Major::Map);
                }
            }
            Some(innermost) => innermost.items -= 1,
            None => {}
        }
        match item(&mut reader, open.len())? {
            Some(inner) => open.push(inner),
            None if open.is_empty() => break,
            None => {}
        }
    }
    match bytes.len() - reader.at {
        0 => Ok(()),
        rest => bad(format!("cbor: {rest} bytes of extraneous data starting at index {}", reader.at)),
    }
}

fn too_many<T>(major: Major) -> Result<T> {
    match major {
        Major::Map => bad(format!("cbor: exceeded max number of key-value pairs {MAX_PAIRS} for CBOR map")),
        _ => bad(format!("cbor: exceeded max number of elements {MAX_ITEMS} for CBOR array")),
    }
}

/// Goes over an item and the tags before it, but not into lists and maps. Tags within tags count as depth.
fn item(reader: &mut Reader<'_>, depth: usize) -> Result<Option<Open>> {
    let mut head = reader.head()?;
    let mut nested = 0;
    while let Head::Number(Major::Tag, tag) = head {
        if reader.at == reader.bytes.len() {
            return bad("unexpected EOF");
        }
        if matches!(tag, 2 | 3) {
            return Err(Fault::unacceptable(Major::Tag, "bignum"));
        }
        head = reader.head()?;
        if matches!(head, Head::Number(Major::Tag, _)) {
            nested += 1;
        }
        if depth + nested > MAX_DEPTH {
            return deep();
        }
    }
    let (major, count, endless) = match head {
        Head::Number(major @ (Major::Array | Major::Map), count) => (major, count, false),
        Head::Endless(major @ (Major::Array | Major::Map)) => (major, 0, true),
        Head::Number(major @ (Major::Bytes | Major::Text), length) => {
            if i64::try_from(length).is_err() {
                let name = major.name();
                return bad(format!("cbor: {name} length {length} is too large, causing integer overflow"));
            }
            reader.take(length)?;
            return Ok(None);
        }
        Head::Endless(major) => {
            pieces(reader, major)?;
            return Ok(None);
        }
        Head::Float(float) if float.is_nan() => {
            return Err(Fault::unacceptable(Major::Simple, "floating-point NaN"));
        }
        Head::Float(float) if float.is_infinite() => {
            return Err(Fault::unacceptable(Major::Simple, "floating-point infinity"));
        }
        Head::Break => return bad("cbor: unexpected \"break\" code"),
        Head::Number(..) | Head::Float(_) => return Ok(None),
    };
    if depth + nested + 1 > MAX_DEPTH {
        return deep();
    }
    if i64::try_from(count).is_err() {
        let name = major.name();
        return bad(format!("cbor: {name} length {count} is too large, it would cause integer overflow"));
    }
    if count > if major == Major::Map { MAX_PAIRS } else { MAX_ITEMS } {
        return too_many(major);
    }
    let items = if major == Major::Map { count * 2 } else { count };
    Ok(Some(Open { major, items, endless }))
}

fn deep<T>() -> Result<T> {
    bad(format!("cbor: exceeded max nested level {MAX_DEPTH}"))
}

/// A string in pieces: each is of the same kind, and whole.
fn pieces(reader: &mut Reader<'_>, major: Major) -> Result<()> {
    while !reader.ends()? {
        let (piece, is_endless) = reader.peek();
        if piece != major {
            let (piece, whole) = (piece.name(), major.name());
            return bad(format!("cbor: wrong element type {piece} for indefinite-length {whole}"));
        }
        if is_endless {
            return bad(format!("cbor: indefinite-length {} chunk is not definite-length", major.name()));
        }
        if let Head::Number(_, length) = reader.head()? {
            reader.take(length)?;
        }
    }
    Ok(())
}
