//! The macros: calls that are written out as other expressions while they are read.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Comprehension, Element, Entry, Expr, Field, Kind, Literal, UNUSED, operators};
use crate::parser::Parser;

/// Which macros there are beside the standard ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Macros {
    /// `optMap`, `optFlatMap`, and the syntax `.?`, `[?` and `{?`.
    pub(crate) optionals: bool,
    /// Those with two variables.
    pub(crate) two_variables: bool,
    /// `sortBy`
    pub(crate) lists: bool,
    /// `cel.bind`
    pub(crate) bindings: bool,
}

/// What became of a call.
pub(crate) enum Expansion {
    Done(Expr),
    /// It is no macro.
    None(Option<Expr>, Vec<Expr>),
}

/// What is wrong, and at which place.
struct Wrong(u32, String);
type Made = Result<Expr, Wrong>;

/// Writes a call out, if it is a macro.
pub(crate) fn expand(
    parser: &mut Parser,
    place: u32,
    function: &str,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Expansion {
    let on = parser.macros();
    let Some(target) = target else {
        if function == operators::HAS && args.len() == 1 {
            let made = has(parser, place, args);
            return done(parser, made);
        }
        return Expansion::None(None, args);
    };
    let namespace = matches!(&target.kind, Kind::Ident(name) if &**name == "cel");
    let mut maker = Maker { parser: &mut *parser, place };
    let made = match (function, args.len()) {
        ("all", 2) => maker.quantifier(Quantifier::All, target, args),
        ("exists", 2) => maker.quantifier(Quantifier::Exists, target, args),
        ("exists_one" | "existsOne", 2) => maker.quantifier(Quantifier::One, target, args),
        ("map", 2 | 3) => maker.map(target, args),
        ("filter", 2) => maker.filter(target, args),
        ("all", 3) if on.two_variables => maker.quantifier(Quantifier::All, target, args),
        ("exists", 3) if on.two_variables => maker.quantifier(Quantifier::Exists, target, args),
        ("exists_one" | "existsOne", 3) if on.two_variables => {
            maker.quantifier(Quantifier::One, target, args)
        }
        ("transformList", 3 | 4) if on.two_variables => maker.transform(Transform::List, target, args),
        ("transformMap", 3 | 4) if on.two_variables => maker.transform(Transform::Map, target, args),
        ("transformMapEntry", 3 | 4) if on.two_variables => maker.transform(Transform::Entry, target, args),
        ("optMap", 2) if on.optionals => maker.opt_map("optMap()", target, args),
        ("optFlatMap", 2) if on.optionals => maker.opt_map("optFlatMap()", target, args),
        ("sortBy", 2) if on.lists => maker.sort_by(target, args),
        ("bind", 3) if on.bindings && namespace => maker.bind(args),
        _ => return Expansion::None(Some(target), args),
    };
    done(parser, made)
}

fn done(parser: &mut Parser, made: Made) -> Expansion {
    Expansion::Done(made.unwrap_or_else(|Wrong(place, message)| parser.error_at(place, message)))
}

fn has(parser: &mut Parser, place: u32, mut args: Vec<Expr>) -> Made {
    let arg = args.remove(0);
    match arg.kind {
        Kind::Select { operand, field, .. } => {
            Ok(parser.node(place, Kind::Select { operand, field, test_only: true }))
        }
        _ => Err(Wrong(parser.place_of(arg.id), "invalid argument to has() macro".into())),
    }
}

enum Quantifier {
    All,
    Exists,
    One,
}

#[derive(PartialEq)]
enum Transform {
    List,
    Map,
    Entry,
}

/// Makes nodes at the place of the macro.
struct Maker<'p> {
    parser: &'p mut Parser,
    place: u32,
}

impl Maker<'_> {
    fn node(&mut self, kind: Kind) -> Expr {
        self.parser.node(self.place, kind)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.node(Kind::Literal(literal))
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.into()))
    }

    fn accu(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { function: function.into(), target: None, args })
    }

    fn method(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { function: function.into(), target: Some(target.into()), args })
    }

    fn list(&mut self, element: Option<Expr>) -> Expr {
        let elements = element.into_iter().map(|value| Element { value, optional: false }).collect();
        self.node(Kind::List(elements))
    }

    fn variable(&self, arg: &Expr, otherwise: &str) -> Result<Arc<str>, Wrong> {
        let wrong = |message: &str| Wrong(self.parser.place_of(arg.id), message.into());
        match &arg.kind {
            Kind::Ident(name) if &**name == ACCUMULATOR => {
                Err(wrong("iteration variable overwrites accumulator variable"))
            }
            Kind::Ident(name) => Ok(name.clone()),
            _ => Err(wrong(otherwise)),
        }
    }

    fn variables(&self, args: &[Expr]) -> Result<(Arc<str>, Arc<str>), Wrong> {
        const WANTED: &str = "argument must be a simple name";
        let simple = |arg: &Expr| match &arg.kind {
            Kind::Ident(name) => Ok(name.clone()),
            _ => Err(Wrong(self.parser.place_of(arg.id), WANTED.into())),
        };
        let (first, second) = (simple(&args[0])?, simple(&args[1])?);
        if first == second {
            return Err(Wrong(self.parser.place_of(args[1].id), format!("duplicate variable name: {first}")));
        }
        Ok((self.variable(&args[0], WANTED)?, self.variable(&args[1], WANTED)?))
    }

    fn fold(&mut self, fold: Comprehension) -> Expr {
        self.node(Kind::Comprehension(Box::new(fold)))
    }

    fn quantifier(&mut self, quantifier: Quantifier, range: Expr, mut args: Vec<Expr>) -> Made {
        let (var, var2) = if args.len() == 3 {
            let (first, second) = self.variables(&args)?;
            (first, Some(second))
        } else {
            (self.variable(&args[0], "argument must be a simple name")?, None)
        };
        let predicate = args.remove(args.len() - 1);
        let (init, condition, step, result);
        match quantifier {
            Quantifier::All => {
                init = self.literal(Literal::Bool(true));
                let accu = self.accu();
                condition = self.call(operators::NOT_STRICTLY_FALSE, vec![accu]);
                let accu = self.accu();
                step = self.call(operators::AND, vec![accu, predicate]);
                result = self.accu();
            }
            Quantifier::Exists => {
                init = self.literal(Literal::Bool(false));
                let accu = self.accu();
                let not = self.call(operators::NOT, vec![accu]);
                condition = self.call(operators::NOT_STRICTLY_FALSE, vec![not]);
                let accu = self.accu();
                step = self.call(operators::OR, vec![accu, predicate]);
                result = self.accu();
            }
            Quantifier::One => {
                init = self.literal(Literal::Int(0));
                condition = self.literal(Literal::Bool(true));
                let (accu, one) = (self.accu(), self.literal(Literal::Int(1)));
                let more = self.call(operators::ADD, vec![accu, one]);
                let same = self.accu();
                step = self.call(operators::CONDITIONAL, vec![predicate, more, same]);
                let (accu, one) = (self.accu(), self.literal(Literal::Int(1)));
                result = self.call(operators::EQUALS, vec![accu, one]);
            }
        }
        Ok(self.fold(Comprehension {
            range,
            var,
            var2,
            accu: ACCUMULATOR.into(),
            init,
            condition,
            step,
            result,
        }))
    }

    /// `accu + [element]`, where the filter lets it.
    fn gather(
        &mut self,
        range: Expr,
        var: Arc<str>,
        var2: Option<Arc<str>>,
        filter: Option<Expr>,
        element: Expr,
    ) -> Expr {
        let init = self.list(None);
        let condition = self.literal(Literal::Bool(true));
        let accu = self.accu();
        let list = self.list(Some(element));
        let step = self.call(operators::ADD, vec![accu, list]);
        let step = self.filtered(filter, step);
        let result = self.accu();
        self.fold(Comprehension { range, var, var2, accu: ACCUMULATOR.into(), init, condition, step, result })
    }

    fn filtered(&mut self, filter: Option<Expr>, step: Expr) -> Expr {
        match filter {
            None => step,
            Some(filter) => {
                let same = self.accu();
                self.call(operators::CONDITIONAL, vec![filter, step, same])
            }
        }
    }

    fn map(&mut self, range: Expr, mut args: Vec<Expr>) -> Made {
        let var = self.variable(&args[0], "argument is not an identifier")?;
        let element = args.remove(args.len() - 1);
        let filter = (args.len() == 2).then(|| args.remove(1));
        Ok(self.gather(range, var, None, filter, element))
    }

    fn filter(&mut self, range: Expr, mut args: Vec<Expr>) -> Made {
        let var = self.variable(&args[0], "argument is not an identifier")?;
        let filter = args.remove(1);
        let element = args.remove(0);
        Ok(self.gather(range, var, None, Some(filter), element))
    }

    fn transform(&mut self, into: Transform, range: Expr, mut args: Vec<Expr>) -> Made {
        let (var, var2) = self.variables(&args)?;
        let made = args.remove(args.len() - 1);
        let filter = (args.len() == 3).then(|| args.remove(2));
        if into == Transform::List {
            return Ok(self.gather(range, var, Some(var2), filter, made));
        }
        let accu = self.accu();
        let args = match into {
            Transform::Entry => vec![accu, made],
            _ => vec![accu, self.ident(&var), made],
        };
        let step = self.call("cel.@mapInsert", args);
        let step = self.filtered(filter, step);
        let init = self.node(Kind::Map(Vec::new()));
        let condition = self.literal(Literal::Bool(true));
        let result = self.accu();
        let var2 = Some(var2);
        Ok(self.fold(Comprehension {
            range,
            var,
            var2,
            accu: ACCUMULATOR.into(),
            init,
            condition,
            step,
            result,
        }))
    }

    /// A comprehension that does not loop: `name` is `value` in `result`.
    fn bound(&mut self, name: Arc<str>, value: Expr, result: Expr) -> Expr {
        let range = self.list(None);
        let condition = self.literal(Literal::Bool(false));
        let step = self.ident(&name);
        self.fold(Comprehension {
            range,
            var: UNUSED.into(),
            var2: None,
            accu: name,
            init: value,
            condition,
            step,
            result,
        })
    }

    fn opt_map(&mut self, shown: &str, target: Expr, mut args: Vec<Expr>) -> Made {
        let Kind::Ident(name) = args[0].kind.clone() else {
            let place = self.parser.place_of(args[0].id);
            return Err(Wrong(place, format!("{shown} variable name must be a simple identifier")));
        };
        let result = args.remove(1);
        let again = self.copy(&target);
        let has = self.method("hasValue", target, Vec::new());
        let value = self.method("value", again, Vec::new());
        let mut made = self.bound(name, value, result);
        if shown == "optMap()" {
            made = self.call("optional.of", vec![made]);
        }
        let none = self.call("optional.none", Vec::new());
        Ok(self.call(operators::CONDITIONAL, vec![has, made, none]))
    }

    fn bind(&mut self, mut args: Vec<Expr>) -> Made {
        let Kind::Ident(name) = args[0].kind.clone() else {
            let place = self.parser.place_of(args[0].id);
            return Err(Wrong(place, "cel.bind() variable names must be simple identifiers".into()));
        };
        let result = args.remove(2);
        let value = args.remove(1);
        Ok(self.bound(name, value, result))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Made {
        const INPUT: &str = "@__sortBy_input__";
        if matches!(target.kind, Kind::Map(_) | Kind::Struct { .. } | Kind::Literal(_)) {
            let message =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err(Wrong(self.parser.place_of(target.id), message.into()));
        }
        let input = self.ident(INPUT);
        let keys = self.map(input, args)?;
        let input = self.ident(INPUT);
        let sorted = self.method("@sortByAssociatedKeys", input, vec![keys]);
        Ok(self.bound(INPUT.into(), target, sorted))
    }

    /// The same expression with ids of its own.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let kind = match &expr.kind {
            Kind::Unspecified | Kind::Literal(_) | Kind::Ident(_) => expr.kind.clone(),
            Kind::Select { operand, field, test_only } => Kind::Select {
                operand: self.copy(operand).into(),
                field: field.clone(),
                test_only: *test_only,
            },
            Kind::Call { function, target, args } => Kind::Call {
                function: function.clone(),
                target: target.as_ref().map(|target| self.copy(target).into()),
                args: args.iter().map(|arg| self.copy(arg)).collect(),
            },
            Kind::List(elements) => Kind::List(
                elements
                    .iter()
                    .map(|e| Element { value: self.copy(&e.value), optional: e.optional })
                    .collect(),
            ),
            Kind::Map(entries) => {
                let copied = |e: &Entry| Entry {
                    key: self.copy(&e.key),
                    value: self.copy(&e.value),
                    optional: e.optional,
                };
                Kind::Map(entries.iter().map(copied).collect())
            }
            Kind::Struct { name, fields } => {
                let copied = |field: &Field| Field {
                    id: self.parser.id(self.place),
                    name: field.name.clone(),
                    value: self.copy(&field.value),
                    optional: field.optional,
                };
                Kind::Struct { name: name.clone(), fields: fields.iter().map(copied).collect() }
            }
            Kind::Comprehension(fold) => Kind::Comprehension(Box::new(Comprehension {
                range: self.copy(&fold.range),
                var: fold.var.clone(),
                var2: fold.var2.clone(),
                accu: fold.accu.clone(),
                init: self.copy(&fold.init),
                condition: self.copy(&fold.condition),
                step: self.copy(&fold.step),
                result: self.copy(&fold.result),
            })),
        };
        let place = self.parser.place_of(expr.id);
        self.parser.node(place, kind)
    }
}
