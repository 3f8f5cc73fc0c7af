//! Amounts.

use std::cmp::Ordering;
use std::sync::Arc;

use apimachinery::quantity::{Format, Quantity};

use crate::decls::Row;
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed, failed_with};

pub(crate) const ROWS: &[Row] = &[
    Row("quantity", "string_to_quantity", "(string): kubernetes.Quantity", quantity),
    Row("isQuantity", "is_quantity_string", "(string): bool", is_quantity),
    Row("sign", "quantity_sign", "(kubernetes.Quantity): int", sign),
    Row(
        "isGreaterThan",
        "quantity_is_greater_than",
        "kubernetes.Quantity.(kubernetes.Quantity): bool",
        is_greater,
    ),
    Row("isLessThan", "quantity_is_less_than", "kubernetes.Quantity.(kubernetes.Quantity): bool", is_less),
    Row("compareTo", "quantity_compare_to", "kubernetes.Quantity.(kubernetes.Quantity): int", compare),
    Row("asApproximateFloat", "quantity_get_float", "kubernetes.Quantity.(): double", as_float),
    Row("asInteger", "quantity_get_int", "kubernetes.Quantity.(): int", as_integer),
    Row("isInteger", "quantity_is_integer", "kubernetes.Quantity.(): bool", is_integer),
    Row("add", "quantity_add", "kubernetes.Quantity.(kubernetes.Quantity): kubernetes.Quantity", add),
    Row("add", "quantity_add_int", "kubernetes.Quantity.(int): kubernetes.Quantity", add),
    Row("sub", "quantity_sub", "kubernetes.Quantity.(kubernetes.Quantity): kubernetes.Quantity", sub),
    Row("sub", "quantity_sub_int", "kubernetes.Quantity.(int): kubernetes.Quantity", sub),
];

fn amount<'v>(value: &'v Val<'_>) -> Result<&'v Quantity, Error> {
    match value {
        Val::Quantity(amount) => Ok(amount),
        _ => Err(NO_OVERLOAD),
    }
}

fn order(args: &[Val<'_>]) -> Result<Ordering, Error> {
    Ok(amount(&args[0])?.cmp(amount(&args[1])?))
}

fn quantity<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let text = args[0].as_str().ok_or(NO_OVERLOAD)?;
    let amount: Quantity = text
        .parse()
        .map_err(|error: apimachinery::quantity::ParseQuantityError| failed_with(error.to_string()))?;
    Ok(Val::Quantity(Arc::new(amount)))
}

fn is_quantity<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let text = args[0].as_str().ok_or(NO_OVERLOAD)?;
    Ok(Val::Bool(text.parse::<Quantity>().is_ok()))
}

fn sign<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    amount(&args[0]).map(|amount| Val::Int(amount.sign().into()))
}

fn is_greater<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    order(args).map(|order| Val::Bool(order.is_gt()))
}

fn is_less<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    order(args).map(|order| Val::Bool(order.is_lt()))
}

fn compare<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    order(args).map(|order| Val::Int(order as i64))
}

fn as_float<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    amount(&args[0]).map(|amount| Val::Double(amount.as_f64()))
}

fn as_integer<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    amount(&args[0])?.as_i64().map(Val::Int).ok_or(failed("cannot convert value to integer"))
}

fn is_integer<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    amount(&args[0]).map(|amount| Val::Bool(amount.as_i64().is_some()))
}

fn combined<'a>(args: &[Val<'a>], combine: fn(&mut Quantity, &Quantity)) -> Evaluated<'a> {
    let mut total = amount(&args[0])?.clone();
    match &args[1] {
        Val::Quantity(other) => combine(&mut total, other),
        Val::Int(other) => combine(&mut total, &Quantity::new(*other, Format::DecimalExponent)),
        _ => return Err(NO_OVERLOAD),
    }
    Ok(Val::Quantity(Arc::new(total)))
}

fn add<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    combined(args, Quantity::add)
}

fn sub<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    combined(args, Quantity::sub)
}
