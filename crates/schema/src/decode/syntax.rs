//! What is wrong with a text that is no JSON, in the words of Go's scanner. Only looked for once the fast parser has
//! refused the text.

use apimachinery::quote::quote;

/// What the scanner is in the middle of.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Key,
    Value,
    Element,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<In>,
}

/// Why it ends here; none when the text ran out.
type Wrong = Option<String>;

/// Go's message for the first mistake of the syntax; none for a text that is JSON.
pub(super) fn mistake(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0, open: Vec::new() };
    match scanner.document() {
        Ok(()) => None,
        Err(wrong) => Some(wrong.unwrap_or_else(|| "unexpected end of JSON input".into())),
    }
}

fn character(c: u8) -> String {
    match c {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        _ => {
            let quoted = quote(&char::from(c).to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

impl Scanner<'_> {
    fn wrong<T>(&self, c: u8, context: &str) -> Result<T, Wrong> {
        Err(Some(format!("invalid character {} {context}", character(c))))
    }

    fn next(&mut self) -> Result<u8, Wrong> {
        let c = *self.text.get(self.at).ok_or(None)?;
        self.at += 1;
        Ok(c)
    }

    /// The next byte that is not white space.
    fn token(&mut self) -> Result<u8, Wrong> {
        loop {
            let c = self.next()?;
            if !matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(c);
            }
        }
    }

    fn document(&mut self) -> Result<(), Wrong> {
        let first = self.token()?;
        self.value(first)?;
        while let Some(open) = self.open.last().copied() {
            let c = self.token()?;
            match (open, c) {
                (In::Key, b':') => {
                    *self.top() = In::Value;
                    let c = self.token()?;
                    self.value(c)?;
                }
                (In::Key, c) => return self.wrong(c, "after object key"),
                (In::Value, b',') => self.key()?,
                (In::Value, b'}') | (In::Element, b']') => drop(self.open.pop()),
                (In::Value, c) => return self.wrong(c, "after object key:value pair"),
                (In::Element, b',') => {
                    let c = self.token()?;
                    self.value(c)?;
                }
                (In::Element, c) => return self.wrong(c, "after array element"),
            }
        }
        match self.token() {
            Ok(c) => self.wrong(c, "after top-level value"),
            Err(_) => Ok(()),
        }
    }

    fn top(&mut self) -> &mut In {
        let last = self.open.len() - 1;
        &mut self.open[last]
    }

    fn key(&mut self) -> Result<(), Wrong> {
        match self.token()? {
            b'"' => {
                *self.top() = In::Key;
                self.string()
            }
            c => self.wrong(c, "looking for beginning of object key string"),
        }
    }

    /// A value that begins with `c`; of an object or list only its beginning.
    fn value(&mut self, mut c: u8) -> Result<(), Wrong> {
        loop {
            match c {
                b'[' => {
                    self.open.push(In::Element);
                    c = self.token()?;
                    if c == b']' {
                        self.open.pop();
                        return Ok(());
                    }
                }
                b'{' => {
                    self.open.push(In::Value);
                    match self.token()? {
                        b'}' => drop(self.open.pop()),
                        b'"' => {
                            *self.top() = In::Key;
                            self.string()?;
                        }
                        c => return self.wrong(c, "looking for beginning of object key string"),
                    }
                    return Ok(());
                }
                b'"' => return self.string(),
                b'-' | b'0'..=b'9' => return self.number(c),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                c => return self.wrong(c, "looking for beginning of value"),
            }
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Wrong> {
        for expected in word.bytes().skip(1) {
            let c = self.next()?;
            if c != expected {
                return self.wrong(c, &format!("in literal {word} (expecting {})", character(expected)));
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Wrong> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let c = self.next()?;
                            if !c.is_ascii_hexdigit() {
                                return self.wrong(c, r"in \u hexadecimal character escape");
                            }
                        }
                    }
                    c => return self.wrong(c, "in string escape code"),
                },
                c if c < 0x20 => return self.wrong(c, "in string literal"),
                _ => {}
            }
        }
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn digit(&mut self, context: &str) -> Result<u8, Wrong> {
        match self.next()? {
            c if c.is_ascii_digit() => Ok(c),
            c => self.wrong(c, context),
        }
    }

    fn number(&mut self, first: u8) -> Result<(), Wrong> {
        let first = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::mistake;

    fn check(text: &str, expected: &str) {
        assert_eq!(mistake(text.as_bytes()).unwrap_or_default(), expected, "{text}");
    }

    #[test]
    fn mistakes() {
        check(r#" {"a":[1,-2.5e3,"x\u00e4",true,null,{}]} "#, "");
        check("", "unexpected end of JSON input");
        check(r#"{"a":"#, "unexpected end of JSON input");
        check("hello", "invalid character 'h' looking for beginning of value");
        check("nul!", "invalid character '!' in literal null (expecting 'l')");
        check(r#"{"a":1}xx"#, "invalid character 'x' after top-level value");
        check(r#"{a:1}"#, "invalid character 'a' looking for beginning of object key string");
        check(r#"{"a" 1}"#, "invalid character '1' after object key");
        check(r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair");
        check("[1 2]", "invalid character '2' after array element");
        check("[01]", "invalid character '1' after array element");
        check("[-x]", "invalid character 'x' in numeric literal");
        check("[1.]", "invalid character ']' after decimal point in numeric literal");
        check("\"\u{1}\"", r"invalid character '\x01' in string literal");
        check(r#""\q""#, "invalid character 'q' in string escape code");
        check(r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string");
    }
}
