//! CEL's own functions: operators, conversions, sizes, strings and times.

use std::cmp::Ordering;

use crate::ast::operators;
use crate::decls::Row;
use crate::re2;
use crate::time::Civil;
use crate::types::Type;
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed_with, ops};

/// Operators, whose implementation looks at the values.
pub(crate) const OPERATORS: &[Row] = &[
    Row(operators::CONDITIONAL, "conditional", "(bool, A, A): A", planned),
    Row(operators::AND, "logical_and", "(bool, bool): bool", planned),
    Row(operators::OR, "logical_or", "(bool, bool): bool", planned),
    Row(operators::NOT, "logical_not", "(bool): bool", not),
    Row(operators::NOT_STRICTLY_FALSE, "not_strictly_false", "(bool): bool", planned),
    Row(operators::EQUALS, "equals", "(A, A): bool", planned),
    Row(operators::NOT_EQUALS, "not_equals", "(A, A): bool", planned),
    Row(operators::NEGATE, "negate_double", "(double): double", negate),
    Row(operators::NEGATE, "negate_int64", "(int): int", negate),
    Row(operators::INDEX, "index_list", "(list(A), int): A", planned),
    Row(operators::INDEX, "index_map", "(map(A, B), A): B", planned),
    Row(operators::IN, "in_list", "(A, list(A)): bool", is_in),
    Row(operators::IN, "in_map", "(A, map(A, B)): bool", is_in),
    Row("_+_", "add_bytes", "(bytes, bytes): bytes", add),
    Row("_+_", "add_double", "(double, double): double", add),
    Row("_+_", "add_duration_duration", "(duration, duration): duration", add),
    Row("_+_", "add_duration_timestamp", "(duration, timestamp): timestamp", add),
    Row("_+_", "add_timestamp_duration", "(timestamp, duration): timestamp", add),
    Row("_+_", "add_int64", "(int, int): int", add),
    Row("_+_", "add_list", "(list(A), list(A)): list(A)", add),
    Row("_+_", "add_string", "(string, string): string", add),
    Row("_+_", "add_uint64", "(uint, uint): uint", add),
    Row("_/_", "divide_double", "(double, double): double", divide),
    Row("_/_", "divide_int64", "(int, int): int", divide),
    Row("_/_", "divide_uint64", "(uint, uint): uint", divide),
    Row("_%_", "modulo_int64", "(int, int): int", modulo),
    Row("_%_", "modulo_uint64", "(uint, uint): uint", modulo),
    Row("_*_", "multiply_double", "(double, double): double", multiply),
    Row("_*_", "multiply_int64", "(int, int): int", multiply),
    Row("_*_", "multiply_uint64", "(uint, uint): uint", multiply),
    Row("_-_", "subtract_double", "(double, double): double", subtract),
    Row("_-_", "subtract_duration_duration", "(duration, duration): duration", subtract),
    Row("_-_", "subtract_int64", "(int, int): int", subtract),
    Row("_-_", "subtract_timestamp_duration", "(timestamp, duration): timestamp", subtract),
    Row("_-_", "subtract_timestamp_timestamp", "(timestamp, timestamp): duration", subtract),
    Row("_-_", "subtract_uint64", "(uint, uint): uint", subtract),
    Row("_<_", "less_bool", "(bool, bool): bool", less),
    Row("_<_", "less_int64", "(int, int): bool", less),
    Row("_<_", "less_int64_double", "(int, double): bool", less),
    Row("_<_", "less_int64_uint64", "(int, uint): bool", less),
    Row("_<_", "less_uint64", "(uint, uint): bool", less),
    Row("_<_", "less_uint64_double", "(uint, double): bool", less),
    Row("_<_", "less_uint64_int64", "(uint, int): bool", less),
    Row("_<_", "less_double", "(double, double): bool", less),
    Row("_<_", "less_double_int64", "(double, int): bool", less),
    Row("_<_", "less_double_uint64", "(double, uint): bool", less),
    Row("_<_", "less_string", "(string, string): bool", less),
    Row("_<_", "less_bytes", "(bytes, bytes): bool", less),
    Row("_<_", "less_timestamp", "(timestamp, timestamp): bool", less),
    Row("_<_", "less_duration", "(duration, duration): bool", less),
    Row("_<=_", "less_equals_bool", "(bool, bool): bool", less_equals),
    Row("_<=_", "less_equals_int64", "(int, int): bool", less_equals),
    Row("_<=_", "less_equals_int64_double", "(int, double): bool", less_equals),
    Row("_<=_", "less_equals_int64_uint64", "(int, uint): bool", less_equals),
    Row("_<=_", "less_equals_uint64", "(uint, uint): bool", less_equals),
    Row("_<=_", "less_equals_uint64_double", "(uint, double): bool", less_equals),
    Row("_<=_", "less_equals_uint64_int64", "(uint, int): bool", less_equals),
    Row("_<=_", "less_equals_double", "(double, double): bool", less_equals),
    Row("_<=_", "less_equals_double_int64", "(double, int): bool", less_equals),
    Row("_<=_", "less_equals_double_uint64", "(double, uint): bool", less_equals),
    Row("_<=_", "less_equals_string", "(string, string): bool", less_equals),
    Row("_<=_", "less_equals_bytes", "(bytes, bytes): bool", less_equals),
    Row("_<=_", "less_equals_timestamp", "(timestamp, timestamp): bool", less_equals),
    Row("_<=_", "less_equals_duration", "(duration, duration): bool", less_equals),
    Row("_>_", "greater_bool", "(bool, bool): bool", greater),
    Row("_>_", "greater_int64", "(int, int): bool", greater),
    Row("_>_", "greater_int64_double", "(int, double): bool", greater),
    Row("_>_", "greater_int64_uint64", "(int, uint): bool", greater),
    Row("_>_", "greater_uint64", "(uint, uint): bool", greater),
    Row("_>_", "greater_uint64_double", "(uint, double): bool", greater),
    Row("_>_", "greater_uint64_int64", "(uint, int): bool", greater),
    Row("_>_", "greater_double", "(double, double): bool", greater),
    Row("_>_", "greater_double_int64", "(double, int): bool", greater),
    Row("_>_", "greater_double_uint64", "(double, uint): bool", greater),
    Row("_>_", "greater_string", "(string, string): bool", greater),
    Row("_>_", "greater_bytes", "(bytes, bytes): bool", greater),
    Row("_>_", "greater_timestamp", "(timestamp, timestamp): bool", greater),
    Row("_>_", "greater_duration", "(duration, duration): bool", greater),
    Row("_>=_", "greater_equals_bool", "(bool, bool): bool", greater_equals),
    Row("_>=_", "greater_equals_int64", "(int, int): bool", greater_equals),
    Row("_>=_", "greater_equals_int64_double", "(int, double): bool", greater_equals),
    Row("_>=_", "greater_equals_int64_uint64", "(int, uint): bool", greater_equals),
    Row("_>=_", "greater_equals_uint64", "(uint, uint): bool", greater_equals),
    Row("_>=_", "greater_equals_uint64_double", "(uint, double): bool", greater_equals),
    Row("_>=_", "greater_equals_uint64_int64", "(uint, int): bool", greater_equals),
    Row("_>=_", "greater_equals_double", "(double, double): bool", greater_equals),
    Row("_>=_", "greater_equals_double_int64", "(double, int): bool", greater_equals),
    Row("_>=_", "greater_equals_double_uint64", "(double, uint): bool", greater_equals),
    Row("_>=_", "greater_equals_string", "(string, string): bool", greater_equals),
    Row("_>=_", "greater_equals_bytes", "(bytes, bytes): bool", greater_equals),
    Row("_>=_", "greater_equals_timestamp", "(timestamp, timestamp): bool", greater_equals),
    Row("_>=_", "greater_equals_duration", "(duration, duration): bool", greater_equals),
];

/// Functions whose implementation looks at the values.
pub(crate) const UNGUARDED: &[Row] = &[
    Row("size", "size_bytes", "(bytes): int", size),
    Row("size", "bytes_size", "bytes.(): int", size),
    Row("size", "size_list", "(list(A)): int", size),
    Row("size", "list_size", "list(A).(): int", size),
    Row("size", "size_map", "(map(A, B)): int", size),
    Row("size", "map_size", "map(A, B).(): int", size),
    Row("size", "size_string", "(string): int", size),
    Row("size", "string_size", "string.(): int", size),
    Row("type", "type", "(A): type(A)", type_of),
    Row("dyn", "to_dyn", "(A): dyn", identity),
    Row("contains", "contains_string", "string.(string): bool", contains),
    Row("endsWith", "ends_with_string", "string.(string): bool", ends_with),
    Row("startsWith", "starts_with_string", "string.(string): bool", starts_with),
    Row("matches", "matches", "(string, string): bool", matches),
    Row("matches", "matches_string", "string.(string): bool", matches),
];

/// Conversions and times.
pub(crate) const ROWS: &[Row] = &[
    Row("bool", "bool_to_bool", "(bool): bool", to_bool),
    Row("bool", "string_to_bool", "(string): bool", to_bool),
    Row("bytes", "bytes_to_bytes", "(bytes): bytes", to_bytes),
    Row("bytes", "string_to_bytes", "(string): bytes", to_bytes),
    Row("double", "double_to_double", "(double): double", to_double),
    Row("double", "int64_to_double", "(int): double", to_double),
    Row("double", "string_to_double", "(string): double", to_double),
    Row("double", "uint64_to_double", "(uint): double", to_double),
    Row("duration", "duration_to_duration", "(duration): duration", to_duration),
    Row("duration", "int64_to_duration", "(int): duration", to_duration),
    Row("duration", "string_to_duration", "(string): duration", to_duration),
    Row("int", "int64_to_int64", "(int): int", to_int),
    Row("int", "double_to_int64", "(double): int", to_int),
    Row("int", "duration_to_int64", "(duration): int", to_int),
    Row("int", "string_to_int64", "(string): int", to_int),
    Row("int", "timestamp_to_int64", "(timestamp): int", to_int),
    Row("int", "uint64_to_int64", "(uint): int", to_int),
    Row("string", "string_to_string", "(string): string", to_string),
    Row("string", "bool_to_string", "(bool): string", to_string),
    Row("string", "bytes_to_string", "(bytes): string", to_string),
    Row("string", "double_to_string", "(double): string", to_string),
    Row("string", "duration_to_string", "(duration): string", to_string),
    Row("string", "int64_to_string", "(int): string", to_string),
    Row("string", "timestamp_to_string", "(timestamp): string", to_string),
    Row("string", "uint64_to_string", "(uint): string", to_string),
    Row("timestamp", "timestamp_to_timestamp", "(timestamp): timestamp", to_timestamp),
    Row("timestamp", "int64_to_timestamp", "(int): timestamp", to_timestamp),
    Row("timestamp", "string_to_timestamp", "(string): timestamp", to_timestamp),
    Row("uint", "uint64_to_uint64", "(uint): uint", to_uint),
    Row("uint", "double_to_uint64", "(double): uint", to_uint),
    Row("uint", "int64_to_uint64", "(int): uint", to_uint),
    Row("uint", "string_to_uint64", "(string): uint", to_uint),
    Row("getFullYear", "timestamp_to_year", "timestamp.(): int", get_full_year),
    Row("getFullYear", "timestamp_to_year_with_tz", "timestamp.(string): int", get_full_year),
    Row("getMonth", "timestamp_to_month", "timestamp.(): int", get_month),
    Row("getMonth", "timestamp_to_month_with_tz", "timestamp.(string): int", get_month),
    Row("getDayOfYear", "timestamp_to_day_of_year", "timestamp.(): int", get_day_of_year),
    Row("getDayOfYear", "timestamp_to_day_of_year_with_tz", "timestamp.(string): int", get_day_of_year),
    Row("getDayOfMonth", "timestamp_to_day_of_month", "timestamp.(): int", get_day_of_month),
    Row("getDayOfMonth", "timestamp_to_day_of_month_with_tz", "timestamp.(string): int", get_day_of_month),
    Row("getDate", "timestamp_to_day_of_month_1_based", "timestamp.(): int", get_date),
    Row("getDate", "timestamp_to_day_of_month_1_based_with_tz", "timestamp.(string): int", get_date),
    Row("getDayOfWeek", "timestamp_to_day_of_week", "timestamp.(): int", get_day_of_week),
    Row("getDayOfWeek", "timestamp_to_day_of_week_with_tz", "timestamp.(string): int", get_day_of_week),
    Row("getHours", "timestamp_to_hours", "timestamp.(): int", get_hours),
    Row("getHours", "timestamp_to_hours_with_tz", "timestamp.(string): int", get_hours),
    Row("getHours", "duration_to_hours", "duration.(): int", get_hours),
    Row("getMinutes", "timestamp_to_minutes", "timestamp.(): int", get_minutes),
    Row("getMinutes", "timestamp_to_minutes_with_tz", "timestamp.(string): int", get_minutes),
    Row("getMinutes", "duration_to_minutes", "duration.(): int", get_minutes),
    Row("getSeconds", "timestamp_to_seconds", "timestamp.(): int", get_seconds),
    Row("getSeconds", "timestamp_to_seconds_with_tz", "timestamp.(string): int", get_seconds),
    Row("getSeconds", "duration_to_seconds", "duration.(): int", get_seconds),
    Row("getMilliseconds", "timestamp_to_milliseconds", "timestamp.(): int", get_milliseconds),
    Row("getMilliseconds", "timestamp_to_milliseconds_with_tz", "timestamp.(string): int", get_milliseconds),
    Row("getMilliseconds", "duration_to_milliseconds", "duration.(): int", get_milliseconds),
    Row("cel.@mapInsert", "@mapInsert_map_key_value", "(map(K, V), K, V): map(K, V)", map_insert),
    Row("cel.@mapInsert", "@mapInsert_map_map", "(map(K, V), map(K, V)): map(K, V)", map_insert),
];

/// What the plan does itself.
fn planned<'a>(_: &[Val<'a>]) -> Evaluated<'a> {
    Err(NO_OVERLOAD)
}

fn identity<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(args[0].clone())
}

fn not<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    args[0].as_bool().map(|value| Val::Bool(!value)).ok_or(NO_OVERLOAD)
}

fn negate<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::negate(&args[0])
}

fn add<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::add(&args[0], &args[1])
}

fn subtract<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::subtract(&args[0], &args[1])
}

fn multiply<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::multiply(&args[0], &args[1])
}

fn divide<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::divide(&args[0], &args[1])
}

fn modulo<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::modulo(&args[0], &args[1])
}

fn compared<'a>(args: &[Val<'a>], operator: &str, fits: fn(Ordering) -> bool) -> Evaluated<'a> {
    if !ops::is_comparable(&args[0]) {
        return Err(failed_with(format!("no such overload: {operator}")));
    }
    ops::compare(&args[0], &args[1]).map(|order| Val::Bool(fits(order)))
}

fn less<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    compared(args, "_<_", Ordering::is_lt)
}

fn less_equals<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    compared(args, "_<=_", Ordering::is_le)
}

fn greater<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    compared(args, "_>_", Ordering::is_gt)
}

fn greater_equals<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    compared(args, "_>=_", Ordering::is_ge)
}

fn is_in<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::contains(&args[0], &args[1]).map(Val::Bool)
}

fn size<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Val::Ip(_) | Val::Cidr(_) => Err(failed_with("no such overload: size".into())),
        value => value
            .size()
            .map(|size| Val::Int(size as i64))
            .ok_or_else(|| failed_with("no such overload: size".into())),
    }
}

fn type_of<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::Type(args[0].kind()))
}

fn two_strings<'v>(args: &'v [Val<'_>]) -> Result<(&'v str, &'v str), Error> {
    Ok((args[0].as_str().ok_or(NO_OVERLOAD)?, args[1].as_str().ok_or(NO_OVERLOAD)?))
}

fn contains<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    two_strings(args).map(|(text, part)| Val::Bool(text.contains(part)))
}

fn ends_with<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    two_strings(args).map(|(text, part)| Val::Bool(text.ends_with(part)))
}

fn starts_with<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    two_strings(args).map(|(text, part)| Val::Bool(text.starts_with(part)))
}

fn matches<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (text, pattern) = two_strings(args)?;
    let regex = re2::compile(pattern).map_err(failed_with)?;
    Ok(Val::Bool(regex.is_match(text)))
}

fn to_bool<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::Bool)
}

fn to_bytes<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::Bytes)
}

fn to_double<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::Double)
}

fn to_duration<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::Duration)
}

fn to_int<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::Int)
}

fn to_string<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::String)
}

fn to_timestamp<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::Timestamp)
}

fn to_uint<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    ops::convert(&args[0], &Type::Uint)
}

fn calendar<'a>(args: &[Val<'a>], part: fn(&Civil, u32) -> i64) -> Evaluated<'a> {
    let Val::Timestamp(time) = &args[0] else { return Err(NO_OVERLOAD) };
    let offset = match args.get(1).and_then(Val::as_str) {
        Some(zone) => time.offset_in(zone)?,
        None => 0,
    };
    Ok(Val::Int(part(&time.civil(offset), time.nanos)))
}

fn get_full_year<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    calendar(args, |civil, _| civil.year)
}

fn get_month<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    calendar(args, |civil, _| civil.month - 1)
}

fn get_day_of_year<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    calendar(args, |civil, _| civil.day_of_year)
}

fn get_day_of_month<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    calendar(args, |civil, _| civil.day - 1)
}

fn get_date<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    calendar(args, |civil, _| civil.day)
}

fn get_day_of_week<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    calendar(args, |civil, _| civil.weekday)
}

fn get_hours<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Val::Duration(nanos) => Ok(Val::Int(nanos / 3_600_000_000_000)),
        _ => calendar(args, |civil, _| civil.second_of_day / 3600),
    }
}

fn get_minutes<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Val::Duration(nanos) => Ok(Val::Int(nanos / 60_000_000_000)),
        _ => calendar(args, |civil, _| civil.second_of_day / 60 % 60),
    }
}

fn get_seconds<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Val::Duration(nanos) => Ok(Val::Int(nanos / 1_000_000_000)),
        _ => calendar(args, |civil, _| civil.second_of_day % 60),
    }
}

fn get_milliseconds<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Val::Duration(nanos) => Ok(Val::Int(nanos / 1_000_000)),
        _ => calendar(args, |_, nanos| i64::from(nanos / 1_000_000)),
    }
}

fn map_insert<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let Val::Map(map) = &args[0] else { return Err(NO_OVERLOAD) };
    match &args[1..] {
        [key, value] => map.clone().insert(key, value.clone()).map(Val::Map),
        [Val::Map(more)] => {
            let mut map = map.clone();
            for (key, value) in more.entries()? {
                map = map.insert(&key, value)?;
            }
            Ok(Val::Map(map))
        }
        _ => Err(NO_OVERLOAD),
    }
}
