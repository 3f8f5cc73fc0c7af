//! CBOR as people read it: RFC 8949's diagnostic notation, with byte strings shown as text where they are.

use super::read::{Head, Reader};
use super::{Major, wellformed};
use std::fmt::Write as _;

/// A document in diagnostic notation; its bytes as digits, where there is none.
pub fn notation(bytes: &[u8]) -> String {
    let mut writer = Writer { reader: Reader { bytes, at: 0 }, out: String::new() };
    match wellformed::check(bytes).is_ok() && writer.item().is_some() {
        true => writer.out,
        false => digits(bytes),
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

struct Writer<'a> {
    reader: Reader<'a>,
    out: String,
}

impl Writer<'_> {
    /// None for what cannot be shown.
    fn item(&mut self) -> Option<()> {
        match self.reader.head().ok()? {
            Head::Number(Major::Unsigned, n) => self.push(n),
            Head::Number(Major::Negative, n) => self.push(-1 - i128::from(n)),
            Head::Number(Major::Bytes, length) => {
                let bytes = self.reader.take(length).ok()?;
                match std::str::from_utf8(bytes) {
                    Ok(text) if !text.is_empty() => self.text(text, '\''),
                    _ => self.push(format_args!("h'{}'", digits(bytes))),
                }
            }
            Head::Number(Major::Text, length) => {
                let text = std::str::from_utf8(self.reader.take(length).ok()?).ok()?;
                self.text(text, '"');
            }
            Head::Number(Major::Array, count) => self.items(Some(count), ("[", "]"), 1)?,
            Head::Endless(Major::Array) => self.items(None, ("[_ ", "]"), 1)?,
            Head::Number(Major::Map, count) => self.items(Some(count), ("{", "}"), 2)?,
            Head::Endless(Major::Map) => self.items(None, ("{_ ", "}"), 2)?,
            Head::Endless(major) if self.reader.bytes.get(self.reader.at) == Some(&0xff) => {
                self.reader.at += 1;
                self.push(if major == Major::Text { "\"\"_" } else { "''_" });
            }
            Head::Endless(_) => self.items(None, ("(_ ", ")"), 1)?,
            Head::Number(Major::Tag, tag) => {
                self.push(format_args!("{tag}("));
                self.item()?;
                self.push(')');
            }
            Head::Number(Major::Simple, simple) => match simple {
                20 => self.push("false"),
                21 => self.push("true"),
                22 => self.push("null"),
                23 => self.push("undefined"),
                other => self.push(format_args!("simple({other})")),
            },
            Head::Float(value) => self.push(float(value)),
            Head::Break => return None,
        }
        Some(())
    }

    fn push(&mut self, what: impl std::fmt::Display) {
        let _ = write!(self.out, "{what}");
    }

    /// So many items, or as many as come; of maps each is a key and its value.
    fn items(&mut self, count: Option<u64>, (begin, end): (&str, &str), of: usize) -> Option<()> {
        self.push(begin);
        let mut done = 0;
        while self.reader.more(done, count).ok()? {
            if done > 0 {
                self.push(", ");
            }
            self.item()?;
            if of == 2 {
                self.push(": ");
                self.item()?;
            }
            done += 1;
        }
        self.push(end);
        Some(())
    }

    fn text(&mut self, text: &str, quote: char) {
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\t' => self.push("\\t"),
                '\n' => self.push("\\n"),
                '\r' => self.push("\\r"),
                '\\' => self.push("\\\\"),
                c if c == quote => self.push(format_args!("\\{c}")),
                ' '..='~' => self.out.push(c),
                c => {
                    for half in c.encode_utf16(&mut [0; 2]) {
                        self.push(format_args!("\\u{half:04x}"));
                    }
                }
            }
        }
        self.out.push(quote);
    }
}

/// A float that is seen to be one; what is no number is no CBOR here.
fn float(value: f64) -> String {
    let text = apimachinery::value::go_float(value);
    match text.split_once('e') {
        _ if text.contains('.') => text,
        Some((mantissa, exponent)) => format!("{mantissa}.0e{exponent}"),
        None => text + ".0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn items_are_shown() {
        let shown = |hex: &str| {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            notation(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>())
        };
        let all = [
            "00",
            "3bffffffffffffffff",
            "4161",
            "40",
            "41ff",
            "626122",
            "4161",
            "80",
            "83010203",
            "9fff",
            "9f0102ff",
            "a0",
            "bfff",
            "a201026161f6",
            "5fff",
            "7fff",
            "5f41614162ff",
            "c074323030302d30312d30315430303a30303a30305a",
            "d9d9f7a0",
            "f4",
            "f7",
            "f0",
            "f8ff",
            "f93c00",
            "fb3ff199999999999a",
            "fb44b52d02c7e14af6",
            "fb3e7ad7f29abcaf48",
            "f97e00",
            "f9fc00",
            "64f09f9880",
            "4427090a5c",
            "61ff",
            "ff",
            "8301",
        ];
        let lines: Vec<String> = all.iter().map(|hex| format!("{hex}: {}\n", shown(hex))).collect();
        expect![[r#"
            00: 0
            3bffffffffffffffff: -18446744073709551616
            4161: 'a'
            40: h''
            41ff: h'ff'
            626122: "a\""
            4161: 'a'
            80: []
            83010203: [1, 2, 3]
            9fff: [_ ]
            9f0102ff: [_ 1, 2]
            a0: {}
            bfff: {_ }
            a201026161f6: {1: 2, "a": null}
            5fff: ''_
            7fff: ""_
            5f41614162ff: (_ 'a', 'b')
            c074323030302d30312d30315430303a30303a30305a: 0("2000-01-01T00:00:00Z")
            d9d9f7a0: 55799({})
            f4: false
            f7: undefined
            f0: simple(16)
            f8ff: simple(255)
            f93c00: 1.0
            fb3ff199999999999a: 1.1
            fb44b52d02c7e14af6: 1.0e+23
            fb3e7ad7f29abcaf48: 1.0e-7
            f97e00: f97e00
            f9fc00: f9fc00
            64f09f9880: "\ud83d\ude00"
            4427090a5c: '\'\t\n\\'
            61ff: 61ff
            ff: ff
            8301: 8301
        "#]]
        .assert_eq(&lines.concat());
    }
}
