//! Escapes of half a character, which Go reads as marks of replacement.

use std::borrow::Cow;

/// The number of an escape `\uXXXX` at the beginning of a text.
fn escaped(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// JSON in which no escape stands for half a character.
pub fn without_halves(json: &str) -> Cow<'_, str> {
    const ESCAPE: usize = 6;
    const MARK: &str = "\\ufffd";
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return Cow::Borrowed(json);
    }
    let (bytes, mut out, mut from, mut at) = (json.as_bytes(), String::new(), 0, 0);
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match escaped(&bytes[at..]) {
            Some(0xd800..0xdc00) if matches!(escaped(&bytes[at + ESCAPE..]), Some(0xdc00..0xe000)) => {
                at += 2 * ESCAPE;
            }
            Some(0xd800..0xe000) => {
                out.push_str(&json[from..at]);
                out.push_str(MARK);
                at += ESCAPE;
                from = at;
            }
            Some(_) => at += ESCAPE,
            None => at += 2,
        }
    }
    out.push_str(&json[from..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::without_halves;

    fn check(json: &str, expected: &str) {
        assert_eq!(without_halves(json), expected);
    }

    #[test]
    fn halves() {
        check(r#"{"a":"\ud83d\ude00"}"#, r#"{"a":"\ud83d\ude00"}"#);
        check(r#"{"a":"\ud800"}"#, r#"{"a":"\ufffd"}"#);
        check(r#"["\udc00\ud800\u0041","\\ud800"]"#, r#"["\ufffd\ufffd\u0041","\\ud800"]"#);
        check("[\"\\uD800", "[\"\\ufffd");
        check("[\"\\ud8", "[\"\\ud8");
    }
}
