//! A `pattern`: Go's dialect of regular expressions, compiled when it is first needed.

use regex::Regex;
use std::sync::OnceLock;

/// A pattern and its program.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    program: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Pattern { text: text.into(), program: OnceLock::new() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn program(&self) -> Result<&Regex, &str> {
        let compile = || Regex::new(&translate(&self.text)).map_err(|e| reason(&e));
        self.program.get_or_init(compile).as_ref().map_err(String::as_str)
    }

    /// Why the pattern is none.
    pub fn error(&self) -> Option<&str> {
        self.program().err()
    }

    /// Whether the text contains a match.
    pub fn matches(&self, text: &str) -> Result<bool, &str> {
        self.program().map(|p| p.is_match(text))
    }
}

/// The last line of the library's message, which is the reason.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Go's `\d`, `\s`, `\w` and `\b` know ASCII only, and `\z` is the end of the text.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut in_class = 0usize;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let Some(next) = chars.next() else {
                    out.push('\\');
                    break;
                };
                let replacement = match (next, in_class > 0) {
                    ('d', true) => "0-9",
                    ('w', true) => "0-9A-Za-z_",
                    ('s', true) => r"\t\n\x0C\r ",
                    ('d', false) => "[0-9]",
                    ('D', _) => "[^0-9]",
                    ('w', false) => "[0-9A-Za-z_]",
                    ('W', _) => "[^0-9A-Za-z_]",
                    ('s', false) => r"[\t\n\x0C\r ]",
                    ('S', _) => r"[^\t\n\x0C\r ]",
                    ('b', false) => r"(?-u:\b)",
                    // The library does not know needless escapes of letters that Go refuses as well.
                    _ => {
                        out.push('\\');
                        out.push(next);
                        continue;
                    }
                };
                out.push_str(replacement);
            }
            '[' if in_class == 0 => {
                in_class = 1;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.push('^');
                    chars.next();
                }
                if chars.peek() == Some(&']') {
                    out.push_str(r"\]");
                    chars.next();
                }
            }
            // A bracket within a class stands for itself in Go, unless it begins a named class.
            '[' => {
                if chars.peek() == Some(&':') {
                    out.push('[');
                    in_class += 1;
                } else {
                    out.push_str(r"\[");
                }
            }
            ']' if in_class > 0 => {
                in_class -= 1;
                out.push(']');
            }
            '&' | '~' if in_class > 0 => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn goes_dialect() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(Pattern::new(pattern).matches(text), Ok(expected), "{pattern} on {text}");
        };
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "१", false);
        check(r"^[\w-]+$", "a-b_9", true);
        check(r"^[^\s[]$", "[", false);
        check(r"^[[:alpha:]]+$", "abc", true);
        check(r"^[]a]+$", "]a", true);
        check(r"b", "abc", true);
        assert!(Pattern::new("(").error().is_some());
    }
}
