//! What only constants can be checked for: durations, timestamps, patterns and formats that are wrong, and lists
//! and maps of one kind only.

use crate::ast::{Expr, Id, Kind, Literal};
use crate::check::Facts;
use crate::library::format::{Clause, interpolate};
use crate::source::{Issue, Source};
use crate::types::Type;
use crate::value::{Text, Val, ops};

/// Checks constants.
pub(crate) fn validate(
    expr: &Expr,
    facts: &Facts,
    source: &Source,
    offsets: &[u32],
    issues: &mut Vec<Issue>,
) {
    let mut report = |id: Id, message: String| {
        issues.push(Issue { location: source.location(offsets[id as usize]), message });
    };
    expr.walk(&mut |expr, above| match &expr.kind {
        Kind::Call { function, target, args } => {
            if let Some(arg) = args.first().filter(|arg| is_wrong(function, arg)) {
                report(arg.id, format!("invalid {function} argument"));
            }
            if &**function == "format"
                && facts.overloads(expr.id).contains(&"string_format")
                && let (Some(Kind::Literal(Literal::String(format))), [Expr { kind: Kind::List(list), .. }]) =
                    (target.as_ref().map(|target| &target.kind), args.as_slice())
            {
                let args: Vec<&Expr> = list.iter().map(|element| &element.value).collect();
                check_format(expr.id, format, &args, facts, &mut report);
            }
        }
        Kind::List(_) | Kind::Map(_) if above.iter().any(|above| is_call(above, "format")) => {}
        Kind::List(elements) => {
            let mut known: Option<&Type> = None;
            for element in elements {
                let of = optional(facts.kind_of(element.value.id), element.optional);
                match known {
                    None => known = Some(of),
                    Some(known) if !known.is_equivalent(of) => {
                        report(element.value.id, mismatch(known, of));
                        break;
                    }
                    Some(_) => {}
                }
            }
        }
        Kind::Map(entries) => {
            let mut known: Option<(&Type, &Type)> = None;
            for entry in entries {
                let key = facts.kind_of(entry.key.id);
                let value = optional(facts.kind_of(entry.value.id), entry.optional);
                let Some((keys, values)) = known else {
                    known = Some((key, value));
                    continue;
                };
                if !keys.is_equivalent(key) {
                    report(entry.key.id, mismatch(keys, key));
                }
                if !values.is_equivalent(value) {
                    report(entry.value.id, mismatch(values, value));
                }
            }
        }
        _ => {}
    });
}

fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(&expr.kind, Kind::Call { function, .. } if &**function == name)
}

fn mismatch(expected: &Type, found: &Type) -> String {
    format!("expected type '{}' but found '{}'", expected.checked(), found.checked())
}

fn optional(of: &Type, optional: bool) -> &Type {
    if optional { of.unwrap_optional().unwrap_or(of) } else { of }
}

/// Whether a constant argument cannot be what the function wants.
fn is_wrong(function: &str, arg: &Expr) -> bool {
    let Kind::Literal(literal) = &arg.kind else { return false };
    let value = match literal {
        Literal::String(text) => Val::String(Text::Shared(text.clone())),
        Literal::Int(value) => Val::Int(*value),
        _ => return false,
    };
    match function {
        "duration" => ops::convert(&value, &Type::Duration).is_err() && matches!(literal, Literal::String(_)),
        "timestamp" => ops::convert(&value, &Type::Timestamp).is_err(),
        "matches" => value.as_str().is_some_and(|pattern| crate::re2::compile(pattern).is_err()),
        _ => false,
    }
}

fn check_format(id: Id, format: &str, args: &[&Expr], facts: &Facts, report: &mut dyn FnMut(Id, String)) {
    let mut wrong_at = None;
    let mut used = 0;
    let result = interpolate(format, args.len(), &mut |index, clause| {
        used = index + 1;
        match unfit(args[index], clause, facts) {
            None => Ok(String::new()),
            Some((at, refusal)) => {
                wrong_at = Some(at);
                Err(refusal)
            }
        }
    });
    match result {
        Err(message) => report(wrong_at.unwrap_or(id), message),
        Ok(_) if args.len() > used => {
            let given = args.len();
            report(
                id,
                format!("too many arguments supplied to string.format (expected {used}, got {given})"),
            );
        }
        Ok(_) => {}
    }
}

/// The part of an argument that a clause cannot write.
fn unfit(arg: &Expr, clause: Clause, facts: &Facts) -> Option<(Id, String)> {
    let of = facts.kind_of(arg.id);
    let fits = *of == Type::Dyn
        || match clause {
            Clause::Text => matches!(
                of,
                Type::List(_)
                    | Type::Map(..)
                    | Type::Int
                    | Type::Uint
                    | Type::Double
                    | Type::Bool
                    | Type::String
                    | Type::Timestamp
                    | Type::Bytes
                    | Type::Duration
                    | Type::Type(_)
                    | Type::Null
            ),
            Clause::Decimal | Clause::Octal => matches!(of, Type::Int | Type::Uint),
            Clause::Fixed(_) | Clause::Scientific => matches!(of, Type::Double | Type::String),
            Clause::Binary => matches!(of, Type::Int | Type::Uint | Type::Bool),
            Clause::Hex { .. } => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
        };
    if !fits {
        return Some((arg.id, clause.refusal(of.name())));
    }
    match (&arg.kind, clause) {
        (Kind::List(elements), Clause::Text) => {
            elements.iter().find_map(|element| unfit(&element.value, clause, facts))
        }
        (Kind::Map(entries), Clause::Text) => entries.iter().find_map(|entry| {
            unfit(&entry.key, clause, facts).or_else(|| unfit(&entry.value, clause, facts))
        }),
        _ => None,
    }
}
