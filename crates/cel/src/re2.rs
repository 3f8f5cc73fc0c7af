//! Patterns as Go's `regexp` reads them, run by Rust's `regex`: both are linear in time, but they do not spell
//! everything alike. Here a pattern is checked by Go's rules, in Go's words, and rewritten.

pub use regex::Regex;

use crate::library::regex::{all_found, found};
use crate::value::{Evaluated, NO_OVERLOAD, Val};

/// The most memory that a compiled pattern may take.
const SIZE_LIMIT: usize = 10 << 20;
/// The most repetitions that Go allows.
const MOST_REPEATS: u32 = 1000;

/// Compiles a pattern of Go's.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let wrong = |what: &str, part: &str| format!("error parsing regexp: {what}: `{part}`");
    let rewritten =
        Rewriter { pattern, rest: pattern, out: String::with_capacity(pattern.len() + 8), open: 0 }
            .run()
            .map_err(|Wrong(what, part)| wrong(what, &part))?;
    regex::RegexBuilder::new(&rewritten)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|_| wrong("expression nests too deeply", pattern))
}

/// A constant pattern, with what is done with it.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    use_: Use,
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Matches,
    Find,
    FindAll,
}

impl Pattern {
    pub(crate) fn new(function: &str, pattern: &str) -> Result<Self, String> {
        let use_ = match function {
            "find" => Use::Find,
            "findAll" => Use::FindAll,
            _ => Use::Matches,
        };
        Ok(Self { regex: compile(pattern)?, use_ })
    }

    pub(crate) fn call<'a>(&self, args: &[Val<'a>]) -> Evaluated<'a> {
        match self.use_ {
            Use::Matches => {
                args[0].as_str().map(|text| Val::Bool(self.regex.is_match(text))).ok_or(NO_OVERLOAD)
            }
            Use::Find => found(&self.regex, args),
            Use::FindAll => all_found(&self.regex, args),
        }
    }
}

/// What is wrong, and with which part.
struct Wrong(&'static str, String);

struct Rewriter<'p> {
    pattern: &'p str,
    rest: &'p str,
    out: String,
    /// How many groups are open.
    open: u32,
}

const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = "\\t\\n\\x0C\\r ";

impl Rewriter<'_> {
    fn run(mut self) -> Result<String, Wrong> {
        // The repetition before, with which another must not be combined.
        let mut repeated: Option<String> = None;
        // Whether there is something to repeat.
        let mut something = false;
        while let Some(next) = self.rest.chars().next() {
            let before = self.rest;
            match next {
                '*' | '+' | '?' | '{' => {
                    let Some(length) = self.repetition()? else {
                        self.out.push_str("\\{");
                        self.rest = &self.rest[1..];
                        (something, repeated) = (true, None);
                        continue;
                    };
                    let lazy = usize::from(before[length..].starts_with('?'));
                    let text = &before[..length + lazy];
                    if let Some(earlier) = &repeated {
                        return Err(Wrong("invalid nested repetition operator", format!("{earlier}{text}")));
                    }
                    if !something {
                        return Err(Wrong(
                            "missing argument to repetition operator",
                            before[..length].into(),
                        ));
                    }
                    self.out.push_str(text);
                    self.rest = &before[text.len()..];
                    repeated = Some(text.into());
                    continue;
                }
                '(' => {
                    self.group()?;
                    (something, repeated) = (false, None);
                    continue;
                }
                ')' => {
                    self.open = self.open.checked_sub(1).ok_or(Wrong("unexpected )", self.pattern.into()))?;
                    self.take(1);
                    something = true;
                }
                '|' => {
                    self.take(1);
                    something = false;
                }
                '[' => {
                    self.class()?;
                    something = true;
                }
                '\\' => {
                    self.escape(false)?;
                    something = true;
                }
                '}' => {
                    self.out.push_str("\\}");
                    self.rest = &self.rest[1..];
                    something = true;
                }
                other => {
                    self.take(other.len_utf8());
                    something = true;
                }
            }
            repeated = None;
        }
        if self.open > 0 {
            return Err(Wrong("missing closing )", self.pattern.into()));
        }
        Ok(self.out)
    }

    fn take(&mut self, length: usize) {
        self.out.push_str(&self.rest[..length]);
        self.rest = &self.rest[length..];
    }

    /// The length of a repetition; none for a brace that is only a brace.
    fn repetition(&self) -> Result<Option<usize>, Wrong> {
        if !self.rest.starts_with('{') {
            return Ok(Some(1));
        }
        let Some(end) = self.rest.find('}') else { return Ok(None) };
        let inner = &self.rest[1..end];
        let (least, most) = inner.split_once(',').map_or((inner, None), |(least, most)| (least, Some(most)));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(least) || most.is_some_and(|most| !most.is_empty() && !digits(most)) {
            return Ok(None);
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= MOST_REPEATS);
        let invalid = || Wrong("invalid repeat count", self.rest[..=end].into());
        let low = number(least).ok_or_else(invalid)?;
        if let Some(most) = most.filter(|most| !most.is_empty())
            && number(most).ok_or_else(invalid)? < low
        {
            return Err(invalid());
        }
        Ok(Some(end + 1))
    }

    fn group(&mut self) -> Result<(), Wrong> {
        let Some(inner) = self.rest.strip_prefix("(?") else {
            self.open += 1;
            self.take(1);
            return Ok(());
        };
        if let Some(named) = inner.strip_prefix("P<").or_else(|| inner.strip_prefix('<')) {
            let end = named.find('>').ok_or_else(|| Wrong("invalid named capture", self.rest.into()))?;
            let name = &named[..end];
            let length = self.rest.len() - named.len() + end + 1;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(Wrong("invalid named capture", self.rest[..length].into()));
            }
            self.open += 1;
            // A name may begin with a digit in Go only, and nothing here asks for names.
            self.out.push('(');
            self.rest = &self.rest[length..];
            return Ok(());
        }
        let Some(end) = inner.find([':', ')']) else {
            return Err(Wrong("missing closing )", self.pattern.into()));
        };
        let flags = &inner[..end];
        let known = flags.chars().all(|flag| matches!(flag, 'i' | 'm' | 's' | 'U' | '-'));
        if !known || flags.matches('-').count() > 1 || flags.ends_with('-') {
            let bad = flags.find(|flag| !matches!(flag, 'i' | 'm' | 's' | 'U' | '-')).unwrap_or(flags.len());
            let shown = bad + inner[bad..].chars().next().map_or(0, char::len_utf8);
            return Err(Wrong("invalid or unsupported Perl syntax", format!("(?{}", &inner[..shown])));
        }
        if inner[end..].starts_with(':') {
            self.open += 1;
        }
        self.take(2 + end + 1);
        Ok(())
    }

    /// An escape, in a class or not.
    fn escape(&mut self, class: bool) -> Result<(), Wrong> {
        let Some(next) = self.rest[1..].chars().next() else {
            return Err(Wrong("trailing backslash at end of expression", String::new()));
        };
        let set = |set: &str, negated: bool| match (negated, class) {
            (false, true) => set.to_owned(),
            (false, false) => format!("[{set}]"),
            (true, _) => format!("[^{set}]"),
        };
        let mut length = 1 + next.len_utf8();
        let rewritten = match next {
            'd' | 'D' => set(DIGIT, next == 'D'),
            'w' | 'W' => set(WORD, next == 'W'),
            's' | 'S' => set(SPACE, next == 'S'),
            'b' if !class => "(?-u:\\b)".into(),
            'B' if !class => "\\B".into(),
            'A' if !class => "\\A".into(),
            'z' if !class => "\\z".into(),
            'a' | 'f' | 't' | 'n' | 'r' | 'v' => format!("\\{next}"),
            'p' | 'P' => {
                let after = &self.rest[2..];
                length = match after.strip_prefix('{') {
                    Some(name) => {
                        let end = name
                            .find('}')
                            .ok_or_else(|| Wrong("invalid character class range", self.rest.into()))?;
                        3 + end + 1
                    }
                    None => 2 + after.chars().next().map_or(0, char::len_utf8),
                };
                let property = &self.rest[..length];
                if regex::Regex::new(property).is_err() {
                    return Err(Wrong("invalid character class range", property.into()));
                }
                property.to_owned()
            }
            'Q' if !class => {
                let literal = &self.rest[2..];
                let end = literal.find("\\E").unwrap_or(literal.len());
                length = (2 + end + 2).min(self.rest.len());
                format!("(?:{})", regex::escape(&literal[..end]))
            }
            'x' => {
                let (code, used) = self.hex()?;
                length = used;
                format!("\\x{{{code:X}}}")
            }
            '0'..='7' => {
                let digits: String =
                    self.rest[1..].chars().take(3).take_while(|c| ('0'..='7').contains(c)).collect();
                // One digit that is not zero would refer back to a group.
                if next != '0' && digits.len() == 1 {
                    return Err(Wrong("invalid escape sequence", self.rest[..2].into()));
                }
                length = 1 + digits.len();
                format!("\\x{{{:X}}}", u32::from_str_radix(&digits, 8).unwrap_or(0))
            }
            other if other.is_ascii() && !other.is_ascii_alphanumeric() && other != '_' => {
                regex::escape(&other.to_string())
            }
            _ => return Err(Wrong("invalid escape sequence", self.rest[..length].into())),
        };
        self.out.push_str(&rewritten);
        self.rest = &self.rest[length..];
        Ok(())
    }

    fn hex(&self) -> Result<(u32, usize), Wrong> {
        let after = &self.rest[2..];
        let found = match after.strip_prefix('{') {
            Some(braced) => braced.find('}').map(|end| (&braced[..end], end + 4)),
            None => after.get(..2).map(|digits| (digits, 4)),
        };
        let parsed = found.and_then(|(digits, length)| {
            let code = u32::from_str_radix(digits, 16).ok().filter(|code| char::from_u32(*code).is_some())?;
            Some((code, length))
        });
        parsed.ok_or_else(|| Wrong("invalid escape sequence", self.rest.chars().take(3).collect()))
    }

    fn class(&mut self) -> Result<(), Wrong> {
        let whole = self.rest;
        self.take(1);
        if self.rest.starts_with('^') {
            self.take(1);
        }
        let mut first = true;
        loop {
            let Some(next) = self.rest.chars().next() else {
                return Err(Wrong("missing closing ]", whole.into()));
            };
            match next {
                ']' if !first => {
                    self.take(1);
                    return Ok(());
                }
                '[' if self.rest.starts_with("[:") => {
                    let end = self.rest.find(":]").map(|end| end + 2);
                    match end {
                        Some(end) if regex::Regex::new(&format!("[{}]", &self.rest[..end])).is_ok() => {
                            self.take(end)
                        }
                        Some(end) => {
                            return Err(Wrong("invalid character class range", self.rest[..end].into()));
                        }
                        None => self.literal('['),
                    }
                }
                '\\' => self.escape(true)?,
                '-' => self.literal_or_range(whole)?,
                other => self.single(other)?,
            }
            first = false;
        }
    }

    fn literal(&mut self, character: char) {
        self.out.push_str(&regex::escape(&character.to_string()));
        self.rest = &self.rest[character.len_utf8()..];
    }

    /// A character, or a range that it begins.
    fn single(&mut self, low: char) -> Result<(), Wrong> {
        let after = &self.rest[low.len_utf8()..];
        let mut following = after.chars();
        if let (Some('-'), Some(high)) = (following.next(), following.next())
            && high != ']'
            && high != '\\'
        {
            let length = low.len_utf8() + 1 + high.len_utf8();
            if high < low {
                return Err(Wrong("invalid character class range", self.rest[..length].into()));
            }
            self.out.push_str(&escaped(low));
            self.out.push('-');
            self.out.push_str(&escaped(high));
            self.rest = &self.rest[length..];
            return Ok(());
        }
        self.out.push_str(&escaped(low));
        self.rest = after;
        Ok(())
    }

    /// A dash: after an escape it may still make a range, else it is one character.
    fn literal_or_range(&mut self, whole: &str) -> Result<(), Wrong> {
        let _ = whole;
        let after = &self.rest[1..];
        let ranged =
            self.out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '}') && !after.starts_with(']');
        if ranged && after.starts_with(|c: char| c != '[') && self.out.contains('\\') && self.after_escape() {
            self.take(1);
            return Ok(());
        }
        self.single('-')
    }

    /// Whether what was written last is an escaped single character.
    fn after_escape(&self) -> bool {
        let tail = &self.out[self.out.rfind('\\').unwrap_or(0)..];
        matches!(tail.as_bytes(), [b'\\', b'a' | b'f' | b't' | b'n' | b'r' | b'v'])
            || (tail.starts_with("\\x{") && tail.ends_with('}'))
    }
}

fn escaped(character: char) -> String {
    match character {
        '&' | '~' | '[' | ']' | '-' | '^' | '\\' => format!("\\{character}"),
        other => regex::escape(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, text, want) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^\w+$", "é", false),
            (r"a\<b", "a<b", true),
            (r"[[a]", "[", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[\w.-]+$", "a.b-c", true),
            (r"^[^\s]+$", "a b", false),
            (r"^\Qa.b\E+$", "a.bb", false),
            (r"a{,2}", "a{,2}", true),
            (r"^(?i)abc$", "ABC", true),
            (r"^[a-c\d-]+$", "b1-", true),
            (r"^\x41\101$", "AA", true),
            (r"^[\x41-\x43]+$", "ABC", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^\S\D\W$", "ab!", true),
        ] {
            let regex = compile(pattern).unwrap_or_else(|wrong| panic!("{pattern}: {wrong}"));
            assert_eq!(regex.is_match(text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn refuses_as_go_does() {
        for (pattern, want) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            (r"\1", r"invalid escape sequence: `\1`"),
            ("\\", "trailing backslash at end of expression: ``"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ] {
            assert_eq!(compile(pattern).unwrap_err(), format!("error parsing regexp: {want}"));
        }
    }
}
