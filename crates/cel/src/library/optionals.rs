//! Optional values.

use crate::ast::operators;
use crate::decls::Row;
use crate::value::{Evaluated, List, NO_OVERLOAD, Val, failed, failed_with};

/// The functions; `or`, `orValue` and the operators are the plan's.
pub(crate) const ROWS: &[Row] = &[
    Row("optional.of", "optional_of", "(V): optional(V)", of),
    Row("optional.ofNonZeroValue", "optional_ofNonZeroValue", "(V): optional(V)", of_non_zero),
    Row("optional.none", "optional_none", "(): optional(V)", none),
    Row("value", "optional_value", "optional(V).(): V", value),
    Row("hasValue", "optional_hasValue", "optional(V).(): bool", has_value),
    Row("or", "optional_or_optional", "optional(V).(optional(V)): optional(V)", or),
    Row("orValue", "optional_orValue_value", "optional(V).(V): V", or_value),
    Row(operators::OPT_SELECT, "select_optional_field", "(dyn, string): optional(V)", planned),
    Row(operators::OPT_INDEX, "list_optindex_optional_int", "(list(V), int): optional(V)", planned),
    Row(
        operators::OPT_INDEX,
        "optional_list_optindex_optional_int",
        "(optional(list(V)), int): optional(V)",
        planned,
    ),
    Row(operators::OPT_INDEX, "map_optindex_optional_value", "(map(K, V), K): optional(V)", planned),
    Row(
        operators::OPT_INDEX,
        "optional_map_optindex_optional_value",
        "(optional(map(K, V)), K): optional(V)",
        planned,
    ),
    Row(operators::INDEX, "optional_list_index_int", "(optional(list(V)), int): optional(V)", planned),
    Row(operators::INDEX, "optional_map_index_value", "(optional(map(K, V)), K): optional(V)", planned),
    Row("last", "list_last", "list(V).(): optional(V)", last),
    Row("first", "list_first", "list(V).(): optional(V)", first),
    Row("optional.unwrap", "optional_unwrap", "(list(optional(V))): list(V)", unwrap),
    Row("unwrapOpt", "optional_unwrapOpt", "list(optional(V)).(): list(V)", unwrap),
];

fn planned<'a>(_: &[Val<'a>]) -> Evaluated<'a> {
    Err(NO_OVERLOAD)
}

fn of<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::some(args[0].clone()))
}

fn of_non_zero<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let zero = match &args[0] {
        Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(value) => *value == 0.0,
        Val::String(text) => text.is_empty(),
        Val::Bytes(bytes) => bytes.is_empty(),
        Val::List(list) => list.is_empty(),
        Val::Map(map) => map.is_empty(),
        Val::Object(object) => object.fields.is_empty(),
        _ => false,
    };
    Ok(if zero { Val::NONE } else { Val::some(args[0].clone()) })
}

fn none<'a>(_: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::NONE)
}

fn value<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Val::Optional(Some(value)) => Ok((**value).clone()),
        _ => Err(failed("optional.none() dereference")),
    }
}

fn has_value<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::Bool(matches!(&args[0], Val::Optional(Some(_)))))
}

fn or<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(match &args[0] {
        Val::Optional(None) => args[1].clone(),
        other => other.clone(),
    })
}

fn or_value<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(match &args[0] {
        Val::Optional(None) => args[1].clone(),
        Val::Optional(Some(value)) => (**value).clone(),
        other => other.clone(),
    })
}

fn list<'v, 'a>(args: &'v [Val<'a>]) -> Result<&'v List<'a>, crate::value::Error> {
    match &args[0] {
        Val::List(list) => Ok(list),
        _ => Err(NO_OVERLOAD),
    }
}

fn at<'a>(list: &List<'a>, index: Option<usize>) -> Evaluated<'a> {
    match index.and_then(|index| list.get(index)) {
        Some(item) => item.map(Val::some),
        None => Ok(Val::NONE),
    }
}

fn first<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    at(list(args)?, Some(0))
}

fn last<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let list = list(args)?;
    at(list, list.len().checked_sub(1))
}

fn unwrap<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let mut values = Vec::new();
    for item in list(args)?.iter() {
        match item? {
            Val::Optional(Some(value)) => values.push((*value).clone()),
            Val::Optional(None) => {}
            other => return Err(failed_with(format!("value {other} is not optional"))),
        }
    }
    Ok(Val::from(values))
}
