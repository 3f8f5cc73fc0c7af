//! Text quoted as Go quotes it: what upstream's messages print with `%q` (`strconv.Quote`).

use std::fmt::Write;

/// `text` between double quotes, escaped as Go's `%q` does.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote_into(&mut out, text);
    out
}

/// Appends what [`quote`] returns.
pub fn quote_into(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\0'..='\u{7f}' => escape(out, format_args!("\\x{:02x}", c as u32)),
            _ if is_print(c) => out.push(c),
            '\u{10000}'.. => escape(out, format_args!("\\U{:08x}", c as u32)),
            _ => escape(out, format_args!("\\u{:04x}", c as u32)),
        }
    }
    out.push('"');
}

fn escape(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

/// Go's `unicode.IsPrint`, by way of the same table behind Rust's `escape_debug`. The letter before
/// the character keeps combining marks, which Go prints, from being escaped.
pub fn is_print(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().nth(1) == Some(c)
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_as_go_does() {
        for (text, want) in [
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\t\u{7}\u{1}\u{7f}", r#""\n\t\a\x01\x7f""#),
            ("é世\u{301}", "\"é世\u{301}\""),
            ("\u{a0}\u{200b}\u{e000}\u{e0001}", r#""\u00a0\u200b\ue000\U000e0001""#),
            ("it's", r#""it's""#),
        ] {
            assert_eq!(quote(text), want);
        }
    }
}
