//! What is between the quotes: escape sequences to characters, or to bytes in a `b"…"`.

/// The value of a quoted text without its `b`. A text that the lexer let through may still be wrong.
pub(crate) fn unescape(quoted: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "unable to unescape string";
    let normalized = quoted.replace("\r\n", "\n").replace('\r', "\n");
    let (raw, text) = match normalized.strip_prefix(['r', 'R']) {
        Some(text) => (true, text),
        None => (false, normalized.as_str()),
    };
    let inner = ["'''", "\"\"\"", "'", "\""]
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .ok_or(WRONG)?;
    let mut out = Vec::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        if raw || character != '\\' {
            push(&mut out, character);
            continue;
        }
        let escape = characters.next().ok_or("unable to unescape string, found '\\' as last character")?;
        let mut number = |digits: usize, radix: u32, wrong: &'static str| {
            let mut value = 0u32;
            for _ in 0..digits {
                let digit = characters.next().and_then(|c| c.to_digit(radix)).ok_or(wrong)?;
                value = value.checked_mul(radix).and_then(|v| v.checked_add(digit)).ok_or(wrong)?;
            }
            Ok::<u32, &'static str>(value)
        };
        let code = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => escape.into(),
            'x' | 'X' => number(2, 16, WRONG)?,
            'u' if !bytes => number(4, 16, WRONG)?,
            'U' if !bytes => number(8, 16, WRONG)?,
            '0'..='3' => {
                const OCTAL: &str = "unable to unescape octal sequence in string";
                escape.to_digit(8).ok_or(OCTAL)? * 64 + number(2, 8, OCTAL)?
            }
            _ => return Err(WRONG),
        };
        if bytes {
            out.push(code as u8);
        } else {
            push(&mut out, char::from_u32(code).ok_or("invalid unicode code point")?);
        }
    }
    Ok(out)
}

fn push(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}
