//! Property names that are no CEL identifiers: `foo-bar` is `foo__dash__bar`, `namespace` is `__namespace__`.

use std::borrow::Cow;

/// Words that no identifier may be.
pub(crate) const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether an expression can name something so.
pub fn is_identifier(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    begins && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) && !RESERVED.contains(&name)
}

/// The identifier for a property; none for a name that has none.
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__").into());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(plain) && !name.contains("__") {
        return Some(name.into());
    }
    let mut out = String::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        let (escaped, length) = match character {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            _ if plain(character) => ("", 1),
            _ => return None,
        };
        if escaped.is_empty() {
            out.push(character);
        } else {
            out.push_str(escaped);
        }
        rest = &rest[length..];
    }
    Some(out.into())
}

/// The property of an identifier; none for an identifier that escapes nothing known.
pub fn unescape(identifier: &str) -> Option<Cow<'_, str>> {
    if !identifier.contains("__") {
        return Some(identifier.into());
    }
    let mut out = String::with_capacity(identifier.len());
    let mut rest = identifier;
    while let Some(at) = rest.find("__") {
        let (before, from) = rest.split_at(at);
        let inner = &from[2..];
        let length = inner.find('_').unwrap_or(0);
        if length == 0 || !inner[length..].starts_with("__") {
            // Two underscores that begin no escape.
            out.push_str(before);
            out.push('_');
            rest = &from[1..];
            continue;
        }
        let word = &inner[..length];
        out.push_str(before);
        match word {
            "underscores" => out.push_str("__"),
            "dot" => out.push('.'),
            "dash" => out.push('-'),
            "slash" => out.push('/'),
            _ if RESERVED.contains(&word) && word.len() + 4 == identifier.len() => out.push_str(word),
            _ => return None,
        }
        rest = &inner[length + 2..];
    }
    out.push_str(rest);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for (name, is) in [
            ("a", true),
            ("_a1", true),
            ("", false),
            ("1a", false),
            ("a-b", false),
            ("in", false),
            ("é", false),
        ] {
            assert_eq!(is_identifier(name), is, "{name}");
        }
    }

    #[test]
    fn there_and_back() {
        for (name, escaped) in [
            ("plain", "plain"),
            ("namespace", "__namespace__"),
            ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
            ("a__b", "a__underscores__b"),
            ("_x_", "_x_"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(escaped));
            assert_eq!(unescape(escaped).as_deref(), Some(name));
        }
        for name in ["", "1a", "a b", "é"] {
            assert_eq!(escape(name), None, "{name}");
        }
        assert_eq!(unescape("a__nothing__"), None);
    }
}
