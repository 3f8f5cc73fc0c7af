//! Constants, lists, maps and objects.

use super::{OPERAND, Parser, Read};
use crate::ast::{Element, Entry, Expr, Field, Kind, Literal};
use crate::lexer::Tok;
use crate::unescape::unescape;

impl Parser {
    fn question(&mut self) -> bool {
        let place = self.place();
        let optional = self.optional();
        if optional && !self.macros.optionals {
            self.error_at(place, "unsupported syntax '?'");
        }
        optional
    }

    /// What comes between elements: whether there is another, or the end was reached.
    fn separator(&mut self, close: Tok, expecting: &str) -> Read<bool> {
        if self.tok() == Tok::Comma {
            self.at += 1;
            if self.tok() == close {
                self.at += 1;
                return Ok(false);
            }
            return Ok(true);
        }
        if self.tok() == close {
            self.at += 1;
            return Ok(false);
        }
        if matches!(self.look(1), Tok::Comma) || self.look(1) == close {
            let text = self.tokens[self.at].text.clone();
            self.syntax_error(format!("extraneous input '{text}' expecting {expecting}"));
            self.at += 1;
            return self.separator(close, expecting);
        }
        self.mismatched(expecting)
    }

    pub(super) fn elements(&mut self) -> Read<Vec<Element>> {
        let mut elements = Vec::new();
        if self.empty(Tok::RightBracket) {
            return Ok(elements);
        }
        loop {
            let optional = self.question();
            elements.push(Element { value: self.expr()?, optional });
            if !self.separator(Tok::RightBracket, "{']', ','}")? {
                return Ok(elements);
            }
        }
    }

    /// Whether it closes at once, after a comma or not.
    fn empty(&mut self, close: Tok) -> bool {
        let comma = usize::from(self.tok() == Tok::Comma && self.look(1) == close);
        let empty = self.look(comma) == close;
        if empty {
            self.at += comma + 1;
        }
        empty
    }

    pub(super) fn entries(&mut self) -> Read<Vec<Entry>> {
        let mut entries = Vec::new();
        if self.empty(Tok::RightBrace) {
            return Ok(entries);
        }
        loop {
            let optional = self.question();
            let key = self.expr()?;
            self.expect(Tok::Colon, "':'")?;
            entries.push(Entry { key, value: self.expr()?, optional });
            if !self.separator(Tok::RightBrace, "{'}', ','}")? {
                return Ok(entries);
            }
        }
    }

    pub(super) fn fields(&mut self) -> Read<Vec<Field>> {
        let mut fields = Vec::new();
        if self.empty(Tok::RightBrace) {
            return Ok(fields);
        }
        loop {
            let optional = self.question();
            if !matches!(self.tok(), Tok::Identifier | Tok::EscapedIdentifier) {
                return self.mismatched("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}");
            }
            let token = self.next();
            let name = self.identifier(&token);
            let place = self.expect(Tok::Colon, "':'")?.start;
            let id = self.id(place);
            fields.push(Field { id, name, value: self.expr()?, optional });
            if !self.separator(Tok::RightBrace, "{'}', ','}")? {
                return Ok(fields);
            }
        }
    }

    pub(super) fn literal(&mut self) -> Read<Expr> {
        let place = self.place();
        let negative = self.tok() == Tok::Minus;
        self.at += usize::from(negative);
        let token = self.next();
        let text = token.text.as_str();
        let sign = if negative { "-" } else { "" };
        let literal = match token.tok {
            Tok::True => Ok(Literal::Bool(true)),
            Tok::False => Ok(Literal::Bool(false)),
            Tok::Null => Ok(Literal::Null),
            Tok::Int => {
                let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
                i64::from_str_radix(&format!("{sign}{digits}"), radix)
                    .map(Literal::Int)
                    .map_err(|_| "invalid int literal")
            }
            Tok::Uint => {
                let text = &text[..text.len() - 1];
                let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
                u64::from_str_radix(digits, radix).map(Literal::Uint).map_err(|_| "invalid uint literal")
            }
            Tok::Float => format!("{sign}{text}")
                .parse()
                .ok()
                .filter(|value: &f64| value.is_finite())
                .map(Literal::Double)
                .ok_or("invalid double literal"),
            Tok::String => unescape(text, false)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "unable to unescape string"))
                .map(|text| Literal::String(text.into())),
            Tok::Bytes => unescape(&text[1..], true).map(|bytes| Literal::Bytes(bytes.into())),
            _ => {
                self.at -= 1;
                return self.mismatched(OPERAND);
            }
        };
        Ok(match literal {
            Ok(literal) => self.node(place, Kind::Literal(literal)),
            Err(message) => self.error_at(place, message),
        })
    }
}
