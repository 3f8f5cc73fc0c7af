//! Text to tokens. What is no token is reported as ANTLR would and left out.

use crate::source::{Issue, Source};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tok {
    EqualEqual,
    NotEqual,
    In,
    Less,
    LessEqual,
    GreaterEqual,
    Greater,
    And,
    Or,
    LeftBracket,
    RightBracket,
    LeftBrace,
    RightBrace,
    LeftParen,
    RightParen,
    Dot,
    Comma,
    Minus,
    Not,
    Question,
    Colon,
    Plus,
    Star,
    Slash,
    Percent,
    True,
    False,
    Null,
    Float,
    Int,
    Uint,
    String,
    Bytes,
    Identifier,
    EscapedIdentifier,
    End,
}

/// A token and where it is, in code points.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) text: String,
    pub(crate) start: u32,
}

/// All tokens of a text, `End` last.
pub(crate) fn tokens(text: &str, source: &Source, issues: &mut Vec<Issue>) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        match scan(rest) {
            Scan::Skip(length) => at += length,
            Scan::Token(tok, length) => {
                found.push(Token { tok, text: rest[..length].iter().collect(), start: at as u32 });
                at += length;
            }
            Scan::Wrong(length) => {
                let length = length.min(rest.len());
                let shown: String = rest[..length].iter().collect();
                let shown = shown.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
                issues.push(Issue {
                    location: source.location(at as u32),
                    message: format!("Syntax error: token recognition error at: '{shown}'"),
                });
                at += length;
            }
        }
    }
    found.push(Token { tok: Tok::End, text: "<EOF>".into(), start: characters.len() as u32 });
    found
}

enum Scan {
    Token(Tok, usize),
    Skip(usize),
    /// So many characters were read, the one that does not fit included.
    Wrong(usize),
}

fn scan(rest: &[char]) -> Scan {
    let peek = |at: usize| rest.get(at).copied().unwrap_or('\0');
    let pair = |second: char, both: Tok, one: Option<Tok>| match (peek(1) == second, one) {
        (true, _) => Scan::Token(both, 2),
        (false, Some(one)) => Scan::Token(one, 1),
        (false, None) => Scan::Wrong(2),
    };
    match rest[0] {
        ' ' | '\t' | '\r' | '\n' | '\u{c}' => {
            Scan::Skip(count(rest, |c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}')))
        }
        '/' if peek(1) == '/' => Scan::Skip(count(rest, |c| c != '\n')),
        '=' => pair('=', Tok::EqualEqual, None),
        '!' => pair('=', Tok::NotEqual, Some(Tok::Not)),
        '<' => pair('=', Tok::LessEqual, Some(Tok::Less)),
        '>' => pair('=', Tok::GreaterEqual, Some(Tok::Greater)),
        '&' => pair('&', Tok::And, None),
        '|' => pair('|', Tok::Or, None),
        '[' => Scan::Token(Tok::LeftBracket, 1),
        ']' => Scan::Token(Tok::RightBracket, 1),
        '{' => Scan::Token(Tok::LeftBrace, 1),
        '}' => Scan::Token(Tok::RightBrace, 1),
        '(' => Scan::Token(Tok::LeftParen, 1),
        ')' => Scan::Token(Tok::RightParen, 1),
        '.' if peek(1).is_ascii_digit() => number(rest),
        '.' => Scan::Token(Tok::Dot, 1),
        ',' => Scan::Token(Tok::Comma, 1),
        '-' => Scan::Token(Tok::Minus, 1),
        '?' => Scan::Token(Tok::Question, 1),
        ':' => Scan::Token(Tok::Colon, 1),
        '+' => Scan::Token(Tok::Plus, 1),
        '*' => Scan::Token(Tok::Star, 1),
        '/' => Scan::Token(Tok::Slash, 1),
        '%' => Scan::Token(Tok::Percent, 1),
        '0'..='9' => number(rest),
        '`' => escaped_identifier(rest),
        '"' | '\'' => string(rest, 0, Tok::String),
        'a'..='z' | 'A'..='Z' | '_' => word(rest),
        _ => Scan::Wrong(1),
    }
}

fn count(rest: &[char], fits: impl Fn(char) -> bool) -> usize {
    rest.iter().position(|c| !fits(*c)).unwrap_or(rest.len())
}

fn digits(rest: &[char], from: usize) -> usize {
    from + count(rest.get(from..).unwrap_or(&[]), |c| c.is_ascii_digit())
}

fn number(rest: &[char]) -> Scan {
    let peek = |at: usize| rest.get(at).copied().unwrap_or('\0');
    if rest[0] == '0' && peek(1) == 'x' && peek(2).is_ascii_hexdigit() {
        let end = 2 + count(&rest[2..], |c| c.is_ascii_hexdigit());
        return integer(rest, end);
    }
    let whole = digits(rest, 0);
    let fraction = match peek(whole) {
        '.' if peek(whole + 1).is_ascii_digit() => digits(rest, whole + 1),
        _ => whole,
    };
    let exponent = match (peek(fraction), peek(fraction + 1)) {
        ('e' | 'E', '+' | '-') if peek(fraction + 2).is_ascii_digit() => digits(rest, fraction + 2),
        ('e' | 'E', next) if next.is_ascii_digit() => digits(rest, fraction + 1),
        _ => fraction,
    };
    if exponent > whole { Scan::Token(Tok::Float, exponent) } else { integer(rest, whole) }
}

fn integer(rest: &[char], end: usize) -> Scan {
    match rest.get(end) {
        Some('u' | 'U') => Scan::Token(Tok::Uint, end + 1),
        _ => Scan::Token(Tok::Int, end),
    }
}

fn escaped_identifier(rest: &[char]) -> Scan {
    let inner = count(&rest[1..], |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
    match rest.get(1 + inner) {
        Some('`') if inner > 0 => Scan::Token(Tok::EscapedIdentifier, inner + 2),
        _ => Scan::Wrong(inner + 2),
    }
}

fn word(rest: &[char]) -> Scan {
    // `r"…"`, `b"…"` and `br"…"` are strings; otherwise the letters begin a name.
    let prefix = count(&rest[..rest.len().min(2)], |c| matches!(c, 'r' | 'R' | 'b' | 'B'));
    let kind = match &rest[..prefix] {
        ['r' | 'R'] => Some(Tok::String),
        ['b' | 'B'] | ['b' | 'B', 'r' | 'R'] => Some(Tok::Bytes),
        _ => None,
    };
    if let (Some(kind), Some('"' | '\'')) = (kind, rest.get(prefix))
        && let Scan::Token(tok, length) = string(rest, prefix, kind)
    {
        return Scan::Token(tok, length);
    }
    let length = count(rest, |c| c.is_ascii_alphanumeric() || c == '_');
    let tok = match rest[..length].iter().collect::<String>().as_str() {
        "in" => Tok::In,
        "true" => Tok::True,
        "false" => Tok::False,
        "null" => Tok::Null,
        _ => Tok::Identifier,
    };
    Scan::Token(tok, length)
}

/// A string whose quote stands at `prefix`.
fn string(rest: &[char], prefix: usize, tok: Tok) -> Scan {
    let quote = rest[prefix];
    let raw = prefix > 0 && matches!(rest[prefix - 1], 'r' | 'R');
    let quotes = rest[prefix..].iter().take(3).take_while(|c| **c == quote).count();
    if quotes == 3
        && let Ok(length) = quoted(rest, prefix + 3, quote, 3, raw)
    {
        return Scan::Token(tok, length);
    }
    if quotes >= 2 {
        return Scan::Token(tok, prefix + 2);
    }
    match quoted(rest, prefix + 1, quote, 1, raw) {
        Ok(length) => Scan::Token(tok, length),
        Err(read) => Scan::Wrong(read),
    }
}

/// The end of what is quoted, or how far it was read in vain.
fn quoted(rest: &[char], from: usize, quote: char, quotes: usize, raw: bool) -> Result<usize, usize> {
    let mut at = from;
    loop {
        let Some(&character) = rest.get(at) else { return Err(at + 1) };
        if character == quote && rest[at..].iter().take(quotes).filter(|c| **c == quote).count() == quotes {
            return Ok(at + quotes);
        }
        at += match character {
            '\\' if !raw => escape(rest, at)?,
            '\n' | '\r' if quotes == 1 => return Err(at + 1),
            _ => 1,
        };
    }
}

/// The length of the escape sequence at `at`.
fn escape(rest: &[char], at: usize) -> Result<usize, usize> {
    let hex = |digits: usize| {
        let fits = count(rest.get(at + 2..).unwrap_or(&[]), |c| c.is_ascii_hexdigit()).min(digits);
        if fits == digits { Ok(2 + digits) } else { Err(at + 2 + fits + 1) }
    };
    match rest.get(at + 1) {
        Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => Ok(2),
        Some('x' | 'X') => hex(2),
        Some('u') => hex(4),
        Some('U') => hex(8),
        Some('0'..='3') => {
            let fits = count(rest.get(at + 2..).unwrap_or(&[]), |c| matches!(c, '0'..='7')).min(2);
            if fits == 2 { Ok(4) } else { Err(at + 2 + fits + 1) }
        }
        _ => Err(at + 2),
    }
}
