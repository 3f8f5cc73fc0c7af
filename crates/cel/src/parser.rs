//! Tokens to a tree, macros expanded on the way. The grammar is CEL's; what is reported, and where, follows
//! the parser that ANTLR makes from it: one token too many or too few is noted and passed over, anything
//! else ends the reading.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod laws;
mod literals;

use std::sync::Arc;

use crate::ast::operators;
use crate::ast::{Expr, Id, Kind, Literal};
use crate::lexer::{Tok, Token, tokens};
use crate::macros::{self, Macros};
use crate::source::{Issue, Location, Source};

/// What came of reading a text.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) expr: Expr,
    /// The place of each node, by id.
    pub(crate) offsets: Vec<u32>,
    pub(crate) issues: Vec<Issue>,
    pub(crate) source: Source,
}

const LONGEST: usize = 100_000;
const DEEPEST: u32 = 250;
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// What was wrong has been noted; nothing more can be read.
pub(crate) struct Stop;
type Read<T> = Result<T, Stop>;

/// Reads an expression.
pub(crate) fn parse(text: &str, macros: Macros) -> Parsed {
    let source = Source::new(text);
    let mut issues = Vec::new();
    let size = text.chars().count();
    if size > LONGEST {
        issues.push(Issue {
            location: Location::NONE,
            message: format!("expression code point size exceeds limit: size: {size}, limit {LONGEST}"),
        });
        return Parsed { expr: Expr { id: 0, kind: Kind::Unspecified }, offsets: vec![0], issues, source };
    }
    let tokens = tokens(text, &source, &mut issues);
    let mut parser = Parser {
        tokens,
        at: 0,
        source,
        issues,
        offsets: vec![0],
        depths: vec![0],
        macros,
        active: Active::default(),
    };
    let expr = parser.whole().unwrap_or(Expr { id: 0, kind: Kind::Unspecified });
    Parsed { expr, offsets: parser.offsets, issues: parser.issues, source: parser.source }
}

pub(crate) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    source: Source,
    issues: Vec<Issue>,
    offsets: Vec<u32>,
    /// How deep each node's tree is, counted as upstream counts it.
    depths: Vec<u32>,
    macros: Macros,
    active: Active,
}

/// How often each rule that can contain itself is being read.
#[derive(Clone, Copy, Default)]
struct Active {
    expr: u32,
    relation: u32,
    calc: u32,
    member: u32,
}

impl Parser {
    fn whole(&mut self) -> Read<Expr> {
        let expr = self.expr()?;
        if self.tok() != Tok::End {
            self.expect(Tok::End, "<EOF>")?;
        }
        Ok(expr)
    }

    fn tok(&self) -> Tok {
        self.tokens[self.at].tok
    }

    fn look(&self, ahead: usize) -> Tok {
        self.tokens.get(self.at + ahead).map_or(Tok::End, |token| token.tok)
    }

    fn place(&self) -> u32 {
        self.tokens[self.at].start
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        if token.tok != Tok::End {
            self.at += 1;
        }
        token
    }

    fn syntax_error(&mut self, message: String) {
        let location = self.source.location(self.place());
        self.issues.push(Issue { location, message: format!("Syntax error: {message}") });
    }

    fn mismatched<T>(&mut self, expecting: &str) -> Read<T> {
        let text = self.tokens[self.at].text.clone();
        self.syntax_error(format!("mismatched input '{text}' expecting {expecting}"));
        Err(Stop)
    }

    fn no_viable<T>(&mut self, from: usize) -> Read<T> {
        let text: String = self.tokens[from..=self.at]
            .iter()
            .filter(|token| token.tok != Tok::End)
            .map(|token| token.text.as_str())
            .collect();
        match text.as_str() {
            ".true" | ".false" | ".null" => {
                self.syntax_error(format!("mismatched input '{}' expecting IDENTIFIER", &text[1..]));
            }
            _ => self.syntax_error(format!("no viable alternative at input '{text}'")),
        }
        Err(Stop)
    }

    /// Takes the token that must come. One token before it is passed over; if it is missing before what
    /// may follow it, it is taken as read.
    fn expect(&mut self, tok: Tok, shown: &str) -> Read<Token> {
        if self.tok() == tok {
            return Ok(self.next());
        }
        let text = self.tokens[self.at].text.clone();
        if self.tok() != Tok::End && self.look(1) == tok {
            self.syntax_error(format!("extraneous input '{text}' expecting {shown}"));
            self.at += 1;
            return Ok(self.next());
        }
        let followed = match tok {
            Tok::RightParen => {
                !starts_operand(self.tok()) || matches!(self.tok(), Tok::Minus | Tok::LeftBracket | Tok::Dot)
            }
            Tok::Colon => starts_operand(self.tok()),
            _ => false,
        };
        if followed && !matches!(self.tok(), Tok::Not) {
            self.syntax_error(format!("missing {shown} at '{text}'"));
            let start = self.place();
            return Ok(Token { tok, text: String::new(), start });
        }
        self.mismatched(shown)
    }

    pub(crate) fn id(&mut self, place: u32) -> Id {
        self.offsets.push(place);
        self.depths.push(0);
        self.offsets.len() as Id - 1
    }

    pub(crate) fn place_of(&self, id: Id) -> u32 {
        self.offsets[id as usize]
    }

    pub(crate) fn node(&mut self, place: u32, kind: Kind) -> Expr {
        let id = self.id(place);
        let expr = Expr { id, kind };
        self.depths[id as usize] = self.depth_below(&expr);
        expr
    }

    fn depth_below(&self, expr: &Expr) -> u32 {
        expr.children().into_iter().map(|child| self.depths[child.id as usize]).max().unwrap_or(0)
    }

    /// A node whose reading upstream counts against its limit.
    fn deep_node(&mut self, place: u32, kind: Kind) -> Read<Expr> {
        let expr = self.node(place, kind);
        let depth = &mut self.depths[expr.id as usize];
        *depth += 1;
        if *depth > DEEPEST {
            self.nowhere("max recursion depth exceeded".into());
            return Err(Stop);
        }
        Ok(expr)
    }

    fn nowhere(&mut self, message: String) {
        self.issues.push(Issue { location: Location::NONE, message });
    }

    fn limit(&mut self, count: impl Fn(&mut Active) -> &mut u32) -> Read<()> {
        let count = count(&mut self.active);
        *count += 1;
        if *count > DEEPEST {
            self.nowhere(format!("expression recursion limit exceeded: {DEEPEST}"));
            return Err(Stop);
        }
        Ok(())
    }

    pub(crate) fn error_at(&mut self, place: u32, message: impl Into<String>) -> Expr {
        let location = self.source.location(place);
        self.issues.push(Issue { location, message: message.into() });
        self.node(place, Kind::Unspecified)
    }

    fn call(&mut self, place: u32, function: &str, args: Vec<Expr>) -> Expr {
        self.node(place, Kind::Call { function: function.into(), target: None, args })
    }

    fn expr(&mut self) -> Read<Expr> {
        let before = self.active;
        self.limit(|active| &mut active.expr)?;
        let mut expr = self.or()?;
        if self.tok() == Tok::Question {
            let place = self.next().start;
            let truthy = self.or()?;
            self.expect(Tok::Colon, "':'")?;
            let falsy = self.expr()?;
            let args = vec![expr, truthy, falsy];
            let kind = Kind::Call { function: operators::CONDITIONAL.into(), target: None, args };
            expr = self.deep_node(place, kind)?;
        }
        self.active = before;
        Ok(expr)
    }

    fn or(&mut self) -> Read<Expr> {
        let mut terms = vec![self.and()?];
        let mut places = Vec::new();
        while self.tok() == Tok::Or {
            places.push(self.next().start);
            terms.push(self.and()?);
        }
        Ok(self.balanced(operators::OR, terms, &places))
    }

    fn and(&mut self) -> Read<Expr> {
        let mut terms = vec![self.binary(0)?];
        let mut places = Vec::new();
        while self.tok() == Tok::And {
            places.push(self.next().start);
            terms.push(self.binary(0)?);
        }
        Ok(self.balanced(operators::AND, terms, &places))
    }

    /// A chain of `&&` or `||` as a tree that is no deeper than it must be.
    fn balanced(&mut self, function: &str, mut terms: Vec<Expr>, places: &[u32]) -> Expr {
        let Some(last) = places.len().checked_sub(1) else { return terms.remove(0) };
        let middle = last.div_ceil(2);
        let right = terms.split_off(middle + 1);
        let left = self.balanced(function, terms, &places[..middle]);
        let right = self.balanced(function, right, &places[middle + 1..]);
        self.call(places[middle], function, vec![left, right])
    }

    /// Relations (level 0), sums (1) and products (2), each from the left.
    fn binary(&mut self, level: u32) -> Read<Expr> {
        let before = self.active;
        match level {
            0 => self.limit(|active| &mut active.relation)?,
            1 => self.limit(|active| &mut active.calc)?,
            _ => {}
        }
        let mut left = self.operand(level)?;
        while let Some(function) = operator(self.tok(), level) {
            let place = self.next().start;
            if level == 0 {
                self.limit(|active| &mut active.relation)?;
            } else {
                self.limit(|active| &mut active.calc)?;
            }
            let right = self.operand(level)?;
            let kind = Kind::Call { function: function.into(), target: None, args: vec![left, right] };
            left = self.deep_node(place, kind)?;
        }
        self.active = before;
        Ok(left)
    }

    fn operand(&mut self, level: u32) -> Read<Expr> {
        if level < 2 { self.binary(level + 1) } else { self.unary() }
    }

    fn unary(&mut self) -> Read<Expr> {
        if !starts_operand(self.tok()) {
            if !starts_operand(self.look(1)) {
                return self.mismatched(OPERAND);
            }
            let text = self.tokens[self.at].text.clone();
            self.syntax_error(format!("extraneous input '{text}' expecting {OPERAND}"));
            self.at += 1;
        }
        let sign = self.tok();
        if !matches!(sign, Tok::Not | Tok::Minus) {
            return self.member();
        }
        let (start, place) = (self.at, self.place());
        let mut count = 0;
        while self.look(count) == sign {
            count += 1;
        }
        if sign == Tok::Minus && count == 1 && matches!(self.look(1), Tok::Int | Tok::Float) {
            return self.member();
        }
        self.at += count;
        if !starts_operand(self.tok()) || self.tok() == Tok::Not {
            return if sign == Tok::Minus { self.no_viable(start) } else { self.mismatched(OPERAND) };
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        let function = if sign == Tok::Not { operators::NOT } else { operators::NEGATE };
        Ok(self.call(place, function, vec![operand]))
    }

    fn member(&mut self) -> Read<Expr> {
        let before = self.active;
        self.limit(|active| &mut active.member)?;
        let mut member = self.primary()?;
        loop {
            match self.tok() {
                Tok::Dot => {
                    self.limit(|active| &mut active.member)?;
                    member = self.dot(member)?;
                }
                Tok::LeftBracket => {
                    self.limit(|active| &mut active.member)?;
                    let place = self.next().start;
                    let optional = self.optional();
                    if !optional && !starts_operand(self.tok()) && !starts_operand(self.look(1)) {
                        return self.mismatched(&OPERAND.replace("'!', ", "'!', '?', "));
                    }
                    let index = self.expr()?;
                    self.expect(Tok::RightBracket, "']'")?;
                    if optional && !self.macros.optionals {
                        member = self.error_at(place, "unsupported syntax '[?'");
                        continue;
                    }
                    let function = if optional { operators::OPT_INDEX } else { operators::INDEX };
                    let kind =
                        Kind::Call { function: function.into(), target: None, args: vec![member, index] };
                    member = self.deep_node(place, kind)?;
                }
                _ => break,
            }
        }
        self.active = before;
        Ok(member)
    }

    fn optional(&mut self) -> bool {
        let optional = self.tok() == Tok::Question;
        if optional {
            self.at += 1;
        }
        optional
    }

    fn dot(&mut self, operand: Expr) -> Read<Expr> {
        let from = self.at;
        let place = self.next().start;
        let optional = self.optional();
        let named = matches!(self.tok(), Tok::Identifier | Tok::EscapedIdentifier);
        if !named {
            return if optional {
                self.mismatched("{IDENTIFIER, ESC_IDENTIFIER}")
            } else {
                self.no_viable(from)
            };
        }
        let name = self.next();
        if name.tok == Tok::Identifier && !optional && self.tok() == Tok::LeftParen {
            let place = self.next().start;
            let args = self.arguments()?;
            return self.receiver_call(place, &name.text, operand, args);
        }
        let field = self.identifier(&name);
        if !optional {
            return self.deep_node(place, Kind::Select { operand: operand.into(), field, test_only: false });
        }
        if !self.macros.optionals {
            return Ok(self.error_at(place, "unsupported syntax '.?'"));
        }
        let field = self.node(name.start, Kind::Literal(Literal::String(field)));
        let function = operators::OPT_SELECT.into();
        self.deep_node(place, Kind::Call { function, target: None, args: vec![operand, field] })
    }

    /// A name, or one in backquotes, which Kubernetes does not allow.
    fn identifier(&mut self, token: &Token) -> Arc<str> {
        if token.tok == Tok::EscapedIdentifier {
            self.error_at(token.start, "unsupported syntax: '`'");
            return token.text.trim_matches('`').into();
        }
        token.text.as_str().into()
    }

    fn arguments(&mut self) -> Read<Vec<Expr>> {
        let mut args = Vec::new();
        if self.tok() == Tok::RightParen {
            self.at += 1;
            return Ok(args);
        }
        if self.tok() == Tok::End {
            return self.mismatched(&OPERAND.replace("'.', ", "')', '.', "));
        }
        loop {
            args.push(self.expr()?);
            if self.tok() != Tok::Comma {
                break;
            }
            self.at += 1;
        }
        self.expect(Tok::RightParen, "')'")?;
        Ok(args)
    }

    fn primary(&mut self) -> Read<Expr> {
        let place = self.place();
        match self.tok() {
            Tok::Dot | Tok::Identifier => self.name(),
            Tok::LeftParen => {
                self.at += 1;
                let expr = self.expr()?;
                self.expect(Tok::RightParen, "')'")?;
                Ok(expr)
            }
            Tok::LeftBracket => {
                self.at += 1;
                let elements = self.elements()?;
                Ok(self.node(place, Kind::List(elements)))
            }
            Tok::LeftBrace => {
                self.at += 1;
                let entries = self.entries()?;
                Ok(self.node(place, Kind::Map(entries)))
            }
            _ => self.literal(),
        }
    }

    fn name(&mut self) -> Read<Expr> {
        let from = self.at;
        let dotted = self.tok() == Tok::Dot;
        let first = self.place();
        self.at += usize::from(dotted);
        if self.tok() != Tok::Identifier {
            return self.no_viable(from);
        }
        // `a.b.C{…}` can only be told from `a.b.C` by its end.
        let mut names = 1;
        while self.look(names * 2 - 1) == Tok::Dot && self.look(names * 2) == Tok::Identifier {
            names += 1;
        }
        let dot = if dotted { "." } else { "" };
        if self.look(names * 2 - 1) == Tok::LeftBrace {
            let words: String =
                self.tokens[self.at..self.at + names * 2 - 1].iter().map(|t| t.text.as_str()).collect();
            self.at += names * 2 - 1;
            let place = self.next().start;
            let fields = self.fields()?;
            return Ok(self.node(place, Kind::Struct { name: format!("{dot}{words}").into(), fields }));
        }
        let token = self.next();
        let reserved = RESERVED.contains(&token.text.as_str());
        let name = format!("{dot}{}", token.text);
        if self.tok() == Tok::LeftParen {
            let place = self.next().start;
            let args = self.arguments()?;
            if reserved {
                return Ok(self.error_at(first, format!("reserved identifier: {}", token.text)));
            }
            return Ok(self.global_call(place, &name, args));
        }
        if reserved {
            return Ok(self.error_at(first, format!("reserved identifier: {}", token.text)));
        }
        Ok(self.node(token.start, Kind::Ident(name.into())))
    }

    fn global_call(&mut self, place: u32, function: &str, args: Vec<Expr>) -> Expr {
        match macros::expand(self, place, function, None, args) {
            macros::Expansion::Done(expr) => expr,
            macros::Expansion::None(_, args) => self.call(place, function, args),
        }
    }

    fn receiver_call(&mut self, place: u32, function: &str, target: Expr, args: Vec<Expr>) -> Read<Expr> {
        match macros::expand(self, place, function, Some(target), args) {
            macros::Expansion::Done(expr) => Ok(expr),
            macros::Expansion::None(target, args) => {
                let target = target.map(Box::new);
                self.deep_node(place, Kind::Call { function: function.into(), target, args })
            }
        }
    }

    pub(crate) const fn macros(&self) -> Macros {
        self.macros
    }
}

const fn starts_operand(tok: Tok) -> bool {
    matches!(
        tok,
        Tok::LeftBracket
            | Tok::LeftBrace
            | Tok::LeftParen
            | Tok::Dot
            | Tok::Minus
            | Tok::Not
            | Tok::True
            | Tok::False
            | Tok::Null
            | Tok::Float
            | Tok::Int
            | Tok::Uint
            | Tok::String
            | Tok::Bytes
            | Tok::Identifier
    )
}

const fn operator(tok: Tok, level: u32) -> Option<&'static str> {
    Some(match (level, tok) {
        (0, Tok::Less) => "_<_",
        (0, Tok::LessEqual) => "_<=_",
        (0, Tok::Greater) => "_>_",
        (0, Tok::GreaterEqual) => "_>=_",
        (0, Tok::EqualEqual) => operators::EQUALS,
        (0, Tok::NotEqual) => operators::NOT_EQUALS,
        (0, Tok::In) => operators::IN,
        (1, Tok::Plus) => operators::ADD,
        (1, Tok::Minus) => "_-_",
        (2, Tok::Star) => "_*_",
        (2, Tok::Slash) => "_/_",
        (2, Tok::Percent) => "_%_",
        _ => return None,
    })
}
