//! What holds for every text and every tree.

use super::parse;
use crate::ast::{Element, Entry, Expr, Field, Kind, Literal};
use crate::env::Environment;
use crate::macros::Macros;
use crate::types::Type;
use crate::value::Val;
use proptest::prelude::*;
use std::fmt::Write as _;

const ALL: Macros = Macros { optionals: true, two_variables: true, lists: true, bindings: true };

/// Writes a tree without macros so that it reads as itself: every operand in parentheses.
fn print(expr: &Expr, out: &mut String) {
    match &expr.kind {
        Kind::Unspecified | Kind::Comprehension(_) => unreachable!("not generated"),
        Kind::Literal(literal) => print_literal(literal, out),
        Kind::Ident(name) => out.push_str(name),
        Kind::Select { operand, field, .. } => {
            print_inside(operand, out);
            write!(out, ".{field}").unwrap();
        }
        Kind::Call { function, target: Some(target), args } => {
            print_inside(target, out);
            write!(out, ".{function}").unwrap();
            print_all("(", args, ")", out);
        }
        Kind::Call { function, target: None, args } => match (&**function, args.as_slice()) {
            ("_[_]", [operand, index]) => {
                print_inside(operand, out);
                out.push('[');
                print(index, out);
                out.push(']');
            }
            ("_?_:_", [condition, yes, no]) => {
                for (arg, after) in [(condition, " ? "), (yes, " : "), (no, "")] {
                    print_inside(arg, out);
                    out.push_str(after);
                }
            }
            (operator, [only]) if operator.ends_with('_') => {
                out.push_str(operator.trim_end_matches('_'));
                print_inside(only, out);
            }
            (operator, [left, right]) if operator.starts_with('_') => {
                print_inside(left, out);
                write!(out, " {} ", operator.trim_matches('_')).unwrap();
                print_inside(right, out);
            }
            ("@in", [left, right]) => {
                print_inside(left, out);
                out.push_str(" in ");
                print_inside(right, out);
            }
            _ => {
                out.push_str(function);
                print_all("(", args, ")", out);
            }
        },
        Kind::List(elements) => {
            out.push('[');
            for element in elements {
                out.push_str(if element.optional { "?" } else { "" });
                print(&element.value, out);
                out.push(',');
            }
            out.push(']');
        }
        Kind::Map(entries) => {
            out.push('{');
            for entry in entries {
                out.push_str(if entry.optional { "?" } else { "" });
                print(&entry.key, out);
                out.push(':');
                print(&entry.value, out);
                out.push(',');
            }
            out.push('}');
        }
        Kind::Struct { name, fields } => {
            write!(out, "{name}{{").unwrap();
            for field in fields {
                write!(out, "{}{}:", if field.optional { "?" } else { "" }, field.name).unwrap();
                print(&field.value, out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

fn print_inside(expr: &Expr, out: &mut String) {
    out.push('(');
    print(expr, out);
    out.push(')');
}

fn print_all(open: &str, args: &[Expr], close: &str, out: &mut String) {
    out.push_str(open);
    for (at, arg) in args.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { ", " });
        print(arg, out);
    }
    out.push_str(close);
}

fn print_literal(literal: &Literal, out: &mut String) {
    match literal {
        Literal::Null => out.push_str("null"),
        Literal::Bool(value) => write!(out, "{value}").unwrap(),
        Literal::Int(value) => write!(out, "{value}").unwrap(),
        Literal::Uint(value) => write!(out, "{value}u").unwrap(),
        Literal::Double(value) => write!(out, "{value:e}").unwrap(),
        Literal::String(text) => {
            let escaped: String = text.chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect();
            write!(out, "\"{escaped}\"").unwrap();
        }
        Literal::Bytes(bytes) => {
            let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            write!(out, "b'{escaped}'").unwrap();
        }
    }
}

/// Without ids: those are the reader's.
fn bare(expr: &Expr) -> Expr {
    let all = |exprs: &[Expr]| exprs.iter().map(bare).collect();
    let kind = match &expr.kind {
        Kind::Select { operand, field, test_only } => {
            Kind::Select { operand: Box::new(bare(operand)), field: field.clone(), test_only: *test_only }
        }
        Kind::Call { function, target, args } => Kind::Call {
            function: function.clone(),
            target: target.as_deref().map(|target| Box::new(bare(target))),
            args: all(args),
        },
        Kind::List(elements) => Kind::List(
            elements.iter().map(|e| Element { value: bare(&e.value), optional: e.optional }).collect(),
        ),
        Kind::Map(entries) => Kind::Map(
            entries
                .iter()
                .map(|e| Entry { key: bare(&e.key), value: bare(&e.value), optional: e.optional })
                .collect(),
        ),
        Kind::Struct { name, fields } => Kind::Struct {
            name: name.clone(),
            fields: fields
                .iter()
                .map(|f| Field { id: 0, name: f.name.clone(), value: bare(&f.value), optional: f.optional })
                .collect(),
        },
        other => other.clone(),
    };
    Expr { id: 0, kind }
}

fn of(kind: Kind) -> Expr {
    Expr { id: 0, kind }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "word", "x_1", "Object"]).prop_map(str::to_owned)
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Bool),
        any::<i64>().prop_map(Literal::Int),
        any::<u64>().prop_map(Literal::Uint),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Literal::Double),
        any::<String>().prop_map(|text| Literal::String(text.into())),
        any::<Vec<u8>>().prop_map(|bytes| Literal::Bytes(bytes.into())),
    ]
}

fn tree() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        literal().prop_map(|literal| of(Kind::Literal(literal))),
        name().prop_map(|name| of(Kind::Ident(name.into()))),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        let operators = vec!["_+_", "_-_", "_*_", "_/_", "_%_", "_<_", "_<=_", "_==_", "_!=_", "@in", "_[_]"];
        let few = prop::collection::vec(inner.clone(), 0..4);
        let call = |function: &str, target: Option<Expr>, args: Vec<Expr>| {
            of(Kind::Call { function: function.into(), target: target.map(Box::new), args })
        };
        prop_oneof![
            (inner.clone(), name()).prop_map(|(operand, field)| of(Kind::Select {
                operand: Box::new(operand),
                field: field.into(),
                test_only: false
            })),
            (prop::sample::select(operators), inner.clone(), inner.clone())
                .prop_map(move |(operator, left, right)| call(operator, None, vec![left, right])),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(move |(a, b, c)| call(
                "_?_:_",
                None,
                vec![a, b, c]
            )),
            inner.clone().prop_map(move |of| call("!_", None, vec![of])),
            (name(), few.clone()).prop_map(move |(function, args)| call(&function, None, args)),
            (name(), inner.clone(), few.clone()).prop_map(move |(function, target, args)| call(
                &function,
                Some(target),
                args
            )),
            prop::collection::vec((inner.clone(), any::<bool>()), 0..4).prop_map(|elements| of(Kind::List(
                elements.into_iter().map(|(value, optional)| Element { value, optional }).collect()
            ))),
            prop::collection::vec((inner.clone(), inner.clone(), any::<bool>()), 0..3).prop_map(|entries| {
                of(Kind::Map(
                    entries
                        .into_iter()
                        .map(|(key, value, optional)| Entry { key, value, optional })
                        .collect(),
                ))
            }),
            (name(), prop::collection::vec((name(), inner, any::<bool>()), 0..3)).prop_map(
                |(name, fields)| {
                    let fields = fields.into_iter().map(|(name, value, optional)| Field {
                        id: 0,
                        name: name.into(),
                        value,
                        optional,
                    });
                    of(Kind::Struct { name: name.into(), fields: fields.collect() })
                }
            ),
        ]
    })
}

/// Texts that are nearly expressions.
fn soup() -> impl Strategy<Value = String> {
    let words = vec![
        "a",
        "o",
        "1",
        "2u",
        "1.5",
        "0x1f",
        "\"s\"",
        "b'x'",
        "'''",
        "\"",
        "true",
        "null",
        "in",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ".",
        ",",
        ":",
        "?",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        "==",
        "<",
        "&&",
        "||",
        "`",
        "\\",
        "has",
        ".all(x, ",
        ".map(x, ",
        ".exists(k, v, ",
        ".filter(x, ",
        "x",
        "size(",
        "cel.bind(y, ",
        ".?",
        "[?",
        "{?",
        "optional.of(",
        "int(",
        "string(",
        "duration(\"1s\")",
        ".matches(\"",
        "é",
        "//",
        "\n",
        " ",
        "type(",
        ".format([",
        "quantity(\"1Gi\")",
        "ip(\"::1\")",
        ".sortBy(x, ",
        "lists.range(3)",
        "o.items",
        "o.name",
    ];
    prop::collection::vec(prop::sample::select(words), 0..24).prop_map(|words| words.concat())
}

/// Whatever is read is either refused or comes to something, within what it may cost.
fn goes_through(text: &str) -> Result<(), TestCaseError> {
    let env = Environment::kubernetes().variable("o", Type::Dyn).bindings();
    let Ok(checked) = env.compile(text) else { return Ok(()) };
    let estimate = checked.estimate(&());
    prop_assert!(estimate.min <= estimate.max);
    let Ok(program) = checked.program() else { return Ok(()) };
    let data = apimachinery::json!({"name": "n", "items": [1, "two", {"three": 3.0}, null]});
    let outcome = program.evaluate(&[("o", Val::from(&data))], 100_000);
    if outcome.result.is_ok() {
        prop_assert!(outcome.cost <= 100_000, "{} for {text}", outcome.cost);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_goes_through(text in any::<String>()) {
        goes_through(&text)?;
    }

    #[test]
    fn any_words_go_through(text in soup()) {
        goes_through(&text)?;
    }

    #[test]
    fn what_is_printed_reads_as_itself(tree in tree()) {
        let mut text = String::new();
        print(&tree, &mut text);
        let parsed = parse(&text, ALL);
        prop_assert!(parsed.issues.is_empty(), "{text}: {:?}", parsed.issues);
        prop_assert_eq!(bare(&parsed.expr), tree, "{}", text);
    }
}
