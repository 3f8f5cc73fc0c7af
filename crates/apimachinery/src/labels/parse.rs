//! Reads the text form of label selectors.

use std::collections::BTreeSet;

use super::{Operator, Requirement, SelectorError, check_key};
use crate::field::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A word, `in` and `notin` included.
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

struct Parser<'a> {
    rest: &'a str,
    path: &'a Path,
}

type Parsed<T> = Result<T, SelectorError>;

fn unexpected<T>(found: Token<'_>, rule: &str) -> Parsed<T> {
    Err(SelectorError(format!("found '{}'{rule}", found.text())))
}

impl<'a> Parser<'a> {
    /// The next token and what follows it.
    fn scan(&self) -> (Token<'a>, &'a str) {
        let text = self.rest.trim_start_matches(is_space);
        let Some(first) = text.chars().next() else { return (Token::End, text) };
        if is_symbol(first) {
            let length = if text.starts_with("==") || text.starts_with("!=") { 2 } else { 1 };
            let (symbol, rest) = text.split_at(length);
            return (Token::Symbol(symbol), rest);
        }
        let end = text.find(|c| is_symbol(c) || is_space(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        (Token::Word(word), rest)
    }

    fn peek(&self) -> Token<'a> {
        self.scan().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.scan();
        self.rest = rest;
        token
    }

    fn requirement(&mut self) -> Parsed<Requirement> {
        let mut token = self.next();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else { return unexpected(token, ", expected: identifier") };
        if let Some(error) = check_key(key, self.path) {
            return Err(SelectorError(error.to_string()));
        }
        let (operator, values) = if negated {
            (Operator::DoesNotExist, BTreeSet::new())
        } else if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            (Operator::Exists, BTreeSet::new())
        } else {
            let operator = self.operator()?;
            let values = match operator {
                Operator::In | Operator::NotIn => self.values()?,
                _ => BTreeSet::from([self.exact_value()?]),
            };
            (operator, values)
        };
        let values = values.into_iter().map(str::to_owned).collect();
        Requirement::new(key, operator, values, self.path).map_err(|errors| SelectorError(errors.to_string()))
    }

    fn operator(&mut self) -> Parsed<Operator> {
        let token = self.next();
        Ok(match token.text() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            "=" => Operator::Equals,
            "==" => Operator::DoubleEquals,
            "!=" => Operator::NotEquals,
            ">" => Operator::GreaterThan,
            "<" => Operator::LessThan,
            _ => return unexpected(token, ", expected: in, notin, =, ==, !=, gt, lt"),
        })
    }

    /// `(a,b)`; an empty place counts as an empty value.
    fn values(&mut self) -> Parsed<BTreeSet<&'a str>> {
        let token = self.next();
        if token != Token::Symbol("(") {
            return unexpected(token, " expected: '('");
        }
        let mut values = BTreeSet::new();
        match self.peek() {
            Token::Symbol(")") => {
                self.next();
                return Ok(BTreeSet::from([""]));
            }
            Token::Word(_) | Token::Symbol(",") => {}
            other => return unexpected(other, ", expected: ',', ')' or identifier"),
        }
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.insert(word);
                    match self.peek() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        other => return unexpected(other, ", expected: ',' or ')'"),
                    }
                }
                Token::Symbol(",") => {
                    if values.is_empty() {
                        values.insert("");
                    }
                    match self.peek() {
                        Token::Symbol(")") => {
                            values.insert("");
                            break;
                        }
                        Token::Symbol(",") => {
                            values.insert("");
                        }
                        _ => {}
                    }
                }
                other => return unexpected(other, ", expected: ',', or identifier"),
            }
        }
        // The closing parenthesis, seen above.
        self.next();
        Ok(values)
    }

    fn exact_value(&mut self) -> Parsed<&'a str> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok("");
        }
        match self.next() {
            Token::Word(word) => Ok(word),
            other => unexpected(other, ", expected: identifier"),
        }
    }
}

pub(super) fn parse(text: &str, path: &Path) -> Parsed<Vec<Requirement>> {
    let mut parser = Parser { rest: text, path };
    let mut requirements = Vec::new();
    match parser.peek() {
        Token::End => return Ok(requirements),
        Token::Word(_) | Token::Symbol("!") => {}
        other => return unexpected(other, ", expected: !, identifier, or 'end of string'"),
    }
    loop {
        let requirement = parser.requirement();
        requirements
            .push(requirement.map_err(|why| SelectorError(format!("unable to parse requirement: {why}")))?);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            other => return unexpected(other, ", expected: ',' or 'end of string'"),
        }
        let next = parser.peek();
        if !matches!(next, Token::Word(_) | Token::Symbol("!")) {
            return unexpected(next, ", expected: identifier after ','");
        }
    }
}
