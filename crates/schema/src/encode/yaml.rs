//! Any document as YAML, written as upstream's library writes it: which text needs quotes, and of what kind, is decided
//! by what a reader would take it for.

use apimachinery::value::{Key, Map, Value};
use regex::Regex;
use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// Text that is longer is no simple key.
const SIMPLE_KEY: usize = 128;

pub(super) fn write(document: &Value) -> String {
    let mut out = String::new();
    match document {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0, false);
            out.push('\n');
        }
    }
    out
}

fn pad(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// The members of a map; the first stands where the writer is.
fn mapping(out: &mut String, map: &Map, depth: usize) {
    let mut members: Vec<(&Key, &Value)> = map.iter().collect();
    members.sort_by(|(a, _), (b, _)| natural(a, b));
    for (i, (key, value)) in members.into_iter().enumerate() {
        if i > 0 {
            pad(out, depth);
        }
        let from = out.len();
        text(out, key, depth, true);
        if out.len() - from > SIMPLE_KEY {
            out.insert_str(from, "? ");
            out.push('\n');
            pad(out, depth);
        }
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                pad(out, depth + 1);
                mapping(out, map, depth + 1);
            }
            // Items stand no deeper than the key they belong to.
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                pad(out, depth);
                sequence(out, items, depth);
            }
            other => {
                out.push(' ');
                scalar(out, other, depth, false);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            pad(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, depth + 1),
            Value::Array(items) if !items.is_empty() => sequence(out, items, depth + 1),
            other => {
                scalar(out, other, depth, false);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value, depth: usize, key: bool) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => {
            let _ = write!(out, "{flag}");
        }
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(string) => text(out, string, depth, key),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// What a text allows, as a look at its characters tells.
struct Allows {
    plain: bool,
    single: bool,
    block: bool,
}

fn allows(text: &str) -> Allows {
    if text.is_empty() {
        return Allows { plain: true, single: true, block: false };
    }
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let (mut breaks, mut special) = (false, false);
    let (mut leading, mut trailing) = (false, false);
    let (mut space_break, mut break_space) = (false, false);
    let (mut trailing_space, mut was_space, mut was_break) = (false, false, false);
    let mut before_white = true;
    let mut chars = text.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        let white_follows = chars.peek().is_none_or(|n| matches!(n, ' ' | '\t' | '\n' | '\r'));
        indicators |= match c {
            '#' if !first => before_white,
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
            | '`'
                if first =>
            {
                true
            }
            '?' | '-' if first => white_follows,
            ':' => white_follows,
            _ => false,
        };
        special |= !is_printable(c);
        let line_break = matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        breaks |= line_break;
        let last = chars.peek().is_none();
        if c == ' ' {
            leading |= first;
            trailing |= last;
            trailing_space |= last;
            break_space |= was_break;
            (was_space, was_break) = (true, false);
        } else if line_break {
            leading |= first;
            trailing |= last;
            space_break |= was_space;
            (was_space, was_break) = (false, true);
        } else {
            (was_space, was_break) = (false, false);
        }
        before_white = matches!(c, ' ' | '\t' | '\n' | '\r');
        first = false;
    }
    let odd = space_break || special;
    Allows {
        plain: !(leading || trailing || break_space || odd || breaks || indicators),
        single: !(break_space || odd),
        block: !(trailing_space || odd),
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

fn text(out: &mut String, text: &str, depth: usize, key: bool) {
    let allows = allows(text);
    let multiline = text.contains('\n');
    if multiline && allows.block && !key {
        return literal(out, text, depth);
    }
    let mut line = Line::new(out, (!key).then_some(depth + 1));
    if multiline || is_something_else(text) {
        return line.double_quoted(text);
    }
    if allows.plain {
        line.words(text);
    } else if allows.single {
        line.out.push('\'');
        line.words(&text.replace('\'', "''"));
        line.out.push('\'');
    } else {
        line.double_quoted(text);
    }
}

/// A text that is being written: at a space beyond a certain width it goes on in the next line.
struct Line<'a> {
    out: &'a mut String,
    /// Where the line began.
    from: usize,
    /// How deep the next line stands; keys have only one.
    depth: Option<usize>,
}

impl<'a> Line<'a> {
    fn new(out: &'a mut String, depth: Option<usize>) -> Self {
        let from = out.rfind('\n').map_or(0, |i| i + 1);
        Line { out, from, depth }
    }

    /// Begins another line if this one is full.
    fn breaks(&mut self) -> bool {
        const WIDTH: usize = 80;
        let Some(depth) = self.depth else { return false };
        let line = &self.out[self.from..];
        if line.len() <= WIDTH || line.chars().count() <= WIDTH {
            return false;
        }
        self.out.push('\n');
        self.from = self.out.len();
        pad(self.out, depth);
        true
    }

    /// Text as it is. Only a space that stands alone can become a line's end.
    fn words(&mut self, text: &str) {
        let mut before = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let alone =
                c == ' ' && !matches!(before, None | Some(' ')) && chars.peek().is_some_and(|n| *n != ' ');
            if !(alone && self.breaks()) {
                self.out.push(c);
            }
            before = Some(c);
        }
    }

    fn double_quoted(&mut self, text: &str) {
        self.out.push('"');
        let mut before = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let within = c == ' ' && !matches!(before, None | Some(' ')) && chars.peek().is_some();
            if within && self.breaks() {
                if chars.peek() == Some(&' ') {
                    self.out.push('\\');
                }
            } else {
                escaped(self.out, c);
            }
            before = Some(c);
        }
        self.out.push('"');
    }
}

fn literal(out: &mut String, text: &str, depth: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text == "\n" || text.ends_with("\n\n") {
        out.push('+');
    }
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, depth + 1);
            out.push_str(line);
        }
    }
}

fn escaped(out: &mut String, c: char) {
    let short = match c {
        '\0' => "\\0",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\u{b}' => "\\v",
        '\u{c}' => "\\f",
        '\r' => "\\r",
        '\u{1b}' => "\\e",
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{85}' => "\\N",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        _ => "",
    };
    let code = u32::from(c);
    let _ = match short {
        "" if is_printable(c) => {
            out.push(c);
            Ok(())
        }
        "" if code <= 0xff => write!(out, "\\x{code:02X}"),
        "" if code <= 0xffff => write!(out, "\\u{code:04X}"),
        "" => write!(out, "\\U{code:08X}"),
        short => {
            out.push_str(short);
            Ok(())
        }
    };
}

static FLOAT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$").ok());
static SEXAGESIMAL: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$").ok());
static TIMESTAMP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^\d{4}-\d\d?-\d\d?([Tt]\d\d?:\d\d?:\d\d?(\.\d*)?(Z|[-+]\d\d?:\d\d)| \d\d?:\d\d?:\d\d?(\.\d*)?( Z| [-+]\d\d?(:\d\d)?)?)?$",
    )
    .ok()
});

/// Whether a reader would take bare text for something that is no text.
fn is_something_else(text: &str) -> bool {
    const WORDS: [&str; 41] = [
        "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True",
        "TRUE", "n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE", ".nan", ".NaN",
        ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", "<<", "=",
    ];
    if WORDS.contains(&text) {
        return text != "=";
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return false;
    }
    let is = |pattern: &LazyLock<Option<Regex>>, text: &str| {
        pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
    };
    let bare = text.replace('_', "");
    is(&FLOAT, &bare) || is(&SEXAGESIMAL, text) || is(&TIMESTAMP, text) || is_integer(&bare)
}

/// A number with a prefix that names its base.
fn is_integer(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let Some((prefix, digits)) = digits.split_at_checked(2) else { return false };
    let base = match prefix {
        "0x" | "0X" => 16,
        "0o" | "0O" => 8,
        "0b" | "0B" => 2,
        _ => return false,
    };
    !digits.is_empty() && digits.chars().all(|c| c.is_digit(base))
}

/// Names in the order people expect: numbers in them by value, letters after all else.
fn natural(a: &str, b: &str) -> Ordering {
    let (x, y): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(i) = x.iter().zip(&y).position(|(p, q)| p != q) else { return x.len().cmp(&y.len()) };
    match (x[i].is_alphabetic(), y[i].is_alphabetic()) {
        (true, true) => return x[i].cmp(&y[i]),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // Zeros within a number count.
    let within = (x[i] == '0' || y[i] == '0')
        && x[..i].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
    let number = |chars: &[char]| {
        let digits: String = chars[i..].iter().take_while(|c| c.is_ascii_digit()).collect();
        let shown = if within { format!("1{digits}") } else { digits.clone() };
        (shown.parse::<u128>().unwrap_or(0), digits.len())
    };
    number(&x).cmp(&number(&y)).then(x[i].cmp(&y[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(json: &str, expected: Expect) {
        expected.assert_eq(&write(&serde_json::from_str(json).unwrap()));
    }

    #[test]
    fn text_is_quoted_where_it_must_be() {
        check(
            r##"{"a":["yes","n","1","1.5e3","0x1f","0b12","2001-01-01","12:30","~","","a: b","a:b","- a","-a","#a","a #b","a#b"," a","a ","a\tb","é","'","a'b","*a","a*","null","=","<<","[a","a,b","---","\u0001",".","..","1_000","10.0.0.1","+1","1e","@a"]}"##,
            expect![[r#"
                a:
                - "yes"
                - "n"
                - "1"
                - "1.5e3"
                - "0x1f"
                - 0b12
                - "2001-01-01"
                - "12:30"
                - "~"
                - ""
                - 'a: b'
                - a:b
                - '- a'
                - -a
                - '#a'
                - 'a #b'
                - a#b
                - ' a'
                - 'a '
                - "a\tb"
                - é
                - ''''
                - a'b
                - '*a'
                - a*
                - "null"
                - =
                - "<<"
                - '[a'
                - a,b
                - '---'
                - "\x01"
                - .
                - ..
                - "1_000"
                - 10.0.0.1
                - "+1"
                - 1e
                - '@a'
            "#]],
        );
    }

    #[test]
    fn lines_and_nests() {
        check(
            r#"{"z":{"f:b":{},".":{},"k:{\"n\":1}":[]},"a10":null,"a9":true,"m":[[1,[2,{"x":1,"y":[3]}]],{"t":"a\nb\n","u":"a\n\nb","v":" a\nb","w":"a\n\n","q":"a \nb"}],"b c":1.5}"#,
            expect![[r#"
                a9: true
                a10: null
                b c: 1.5
                m:
                - - 1
                  - - 2
                    - x: 1
                      "y":
                      - 3
                - q: "a \nb"
                  t: |
                    a
                    b
                  u: |-
                    a

                    b
                  v: |2-
                     a
                    b
                  w: |+
                    a

                z:
                  .: {}
                  f:b: {}
                  k:{"n":1}: []
            "#]],
        );
        check(
            "[]",
            expect![[r#"
            []
        "#]],
        );
    }
}
