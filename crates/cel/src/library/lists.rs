//! Lists: Kubernetes' own functions and CEL's extension.

use std::cmp::Ordering;

use crate::decls::Row;
use crate::value::{Error, Evaluated, List, NO_OVERLOAD, Val, failed, failed_with, ops};

/// Kubernetes' own.
pub(crate) const KUBERNETES: &[Row] = &[
    Row("isSorted", "list_int_is_sorted_bool", "list(int).(): bool", is_sorted),
    Row("isSorted", "list_uint_is_sorted_bool", "list(uint).(): bool", is_sorted),
    Row("isSorted", "list_double_is_sorted_bool", "list(double).(): bool", is_sorted),
    Row("isSorted", "list_bool_is_sorted_bool", "list(bool).(): bool", is_sorted),
    Row("isSorted", "list_duration_is_sorted_bool", "list(duration).(): bool", is_sorted),
    Row("isSorted", "list_timestamp_is_sorted_bool", "list(timestamp).(): bool", is_sorted),
    Row("isSorted", "list_string_is_sorted_bool", "list(string).(): bool", is_sorted),
    Row("isSorted", "list_bytes_is_sorted_bool", "list(bytes).(): bool", is_sorted),
    Row("sum", "list_int_sum_int", "list(int).(): int", sum_int),
    Row("sum", "list_uint_sum_uint", "list(uint).(): uint", sum_uint),
    Row("sum", "list_double_sum_double", "list(double).(): double", sum_double),
    Row("sum", "list_duration_sum_duration", "list(duration).(): duration", sum_duration),
    Row("max", "list_int_max_int", "list(int).(): int", max),
    Row("max", "list_uint_max_uint", "list(uint).(): uint", max),
    Row("max", "list_double_max_double", "list(double).(): double", max),
    Row("max", "list_bool_max_bool", "list(bool).(): bool", max),
    Row("max", "list_duration_max_duration", "list(duration).(): duration", max),
    Row("max", "list_timestamp_max_timestamp", "list(timestamp).(): timestamp", max),
    Row("max", "list_string_max_string", "list(string).(): string", max),
    Row("max", "list_bytes_max_bytes", "list(bytes).(): bytes", max),
    Row("min", "list_int_min_int", "list(int).(): int", min),
    Row("min", "list_uint_min_uint", "list(uint).(): uint", min),
    Row("min", "list_double_min_double", "list(double).(): double", min),
    Row("min", "list_bool_min_bool", "list(bool).(): bool", min),
    Row("min", "list_duration_min_duration", "list(duration).(): duration", min),
    Row("min", "list_timestamp_min_timestamp", "list(timestamp).(): timestamp", min),
    Row("min", "list_string_min_string", "list(string).(): string", min),
    Row("min", "list_bytes_min_bytes", "list(bytes).(): bytes", min),
    Row("indexOf", "list_a_index_of_int", "list(A).(A): int", index_of),
    Row("lastIndexOf", "list_a_last_index_of_int", "list(A).(A): int", last_index_of),
];

/// CEL's extension.
pub(crate) const ROWS: &[Row] = &[
    Row("slice", "list_slice", "list(T).(int, int): list(T)", slice),
    Row("lists.range", "lists_range", "(int): list(int)", range),
    Row("reverse", "list_reverse", "list(T).(): list(T)", reverse),
    Row("distinct", "list_distinct", "list(T).(): list(T)", distinct),
];

/// CEL's extension, where the implementation looks at the values.
pub(crate) const UNGUARDED: &[Row] = &[
    Row("flatten", "list_flatten", "list(list(T)).(): list(T)", flatten),
    Row("flatten", "list_flatten_int", "list(dyn).(int): list(dyn)", flatten),
    Row("sort", "list_int_sort", "list(int).(): list(int)", sort),
    Row("sort", "list_uint_sort", "list(uint).(): list(uint)", sort),
    Row("sort", "list_double_sort", "list(double).(): list(double)", sort),
    Row("sort", "list_bool_sort", "list(bool).(): list(bool)", sort),
    Row("sort", "list_google.protobuf.Duration_sort", "list(duration).(): list(duration)", sort),
    Row("sort", "list_google.protobuf.Timestamp_sort", "list(timestamp).(): list(timestamp)", sort),
    Row("sort", "list_string_sort", "list(string).(): list(string)", sort),
    Row("sort", "list_bytes_sort", "list(bytes).(): list(bytes)", sort),
    Row("@sortByAssociatedKeys", "list_int_sortByAssociatedKeys", "list(T).(list(int)): list(T)", sort_by),
    Row("@sortByAssociatedKeys", "list_uint_sortByAssociatedKeys", "list(T).(list(uint)): list(T)", sort_by),
    Row(
        "@sortByAssociatedKeys",
        "list_double_sortByAssociatedKeys",
        "list(T).(list(double)): list(T)",
        sort_by,
    ),
    Row("@sortByAssociatedKeys", "list_bool_sortByAssociatedKeys", "list(T).(list(bool)): list(T)", sort_by),
    Row(
        "@sortByAssociatedKeys",
        "list_google.protobuf.Duration_sortByAssociatedKeys",
        "list(T).(list(duration)): list(T)",
        sort_by,
    ),
    Row(
        "@sortByAssociatedKeys",
        "list_google.protobuf.Timestamp_sortByAssociatedKeys",
        "list(T).(list(timestamp)): list(T)",
        sort_by,
    ),
    Row(
        "@sortByAssociatedKeys",
        "list_string_sortByAssociatedKeys",
        "list(T).(list(string)): list(T)",
        sort_by,
    ),
    Row(
        "@sortByAssociatedKeys",
        "list_bytes_sortByAssociatedKeys",
        "list(T).(list(bytes)): list(T)",
        sort_by,
    ),
];

fn list<'v, 'a>(args: &'v [Val<'a>]) -> Result<&'v List<'a>, Error> {
    match args.first() {
        Some(Val::List(list)) => Ok(list),
        _ => Err(NO_OVERLOAD),
    }
}

fn values<'a>(list: &List<'a>) -> Result<Vec<Val<'a>>, Error> {
    list.iter().collect()
}

/// The order of two elements; what cannot be compared is in no order.
fn order(one: &Val<'_>, other: &Val<'_>) -> Option<Ordering> {
    ops::compare(one, other).ok()
}

fn is_sorted<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let values = values(list(args)?)?;
    if values.iter().any(|value| !ops::is_comparable(value)) {
        return Err(NO_OVERLOAD);
    }
    Ok(Val::Bool(values.windows(2).all(|pair| order(&pair[0], &pair[1]) != Some(Ordering::Greater))))
}

fn sum<'a>(args: &[Val<'a>], zero: Val<'a>) -> Evaluated<'a> {
    list(args)?.iter().try_fold(zero, |sum, item| {
        // Upstream does not tell which addition failed.
        ops::add(&sum, &item?).map_err(|error| match error {
            Error::Failed(message) if message.contains("overflow") => Error::Failed(message),
            _ => NO_OVERLOAD,
        })
    })
}

fn sum_int<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    sum(args, Val::Int(0))
}

fn sum_uint<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    sum(args, Val::Uint(0))
}

fn sum_double<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    sum(args, Val::Double(0.0))
}

fn sum_duration<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    sum(args, Val::Duration(0))
}

fn extreme<'a>(args: &[Val<'a>], name: &str, yields: Ordering) -> Evaluated<'a> {
    let mut best: Option<Val<'a>> = None;
    for item in list(args)?.iter() {
        let item = item?;
        if !ops::is_comparable(&item) {
            return Err(NO_OVERLOAD);
        }
        if best.as_ref().is_none_or(|best| order(best, &item) == Some(yields)) {
            best = Some(item);
        }
    }
    best.ok_or_else(|| failed_with(format!("{name} called on empty list")))
}

fn max<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    extreme(args, "max", Ordering::Less)
}

fn min<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    extreme(args, "min", Ordering::Greater)
}

fn position<'a>(args: &[Val<'a>], last: bool) -> Evaluated<'a> {
    let mut found = -1;
    for (at, item) in list(args)?.iter().enumerate() {
        if ops::equal(&item?, &args[1]).unwrap_or(false) {
            found = at as i64;
            if !last {
                break;
            }
        }
    }
    Ok(Val::Int(found))
}

fn index_of<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    position(args, false)
}

fn last_index_of<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    position(args, true)
}

fn slice<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (list, Val::Int(start), Val::Int(end)) = (list(args)?, &args[1], &args[2]) else {
        return Err(NO_OVERLOAD);
    };
    let wrong = |why: String| Err(failed_with(format!("cannot slice({start}, {end}), {why}")));
    if *start < 0 || *end < 0 {
        return wrong("negative indexes not supported".into());
    }
    if start > end {
        return wrong("start index must be less than or equal to end index".into());
    }
    if (list.len() as i64) < *end {
        return wrong(format!("list is length {}", list.len()));
    }
    let taken = list.iter().skip(*start as usize).take((end - start) as usize);
    taken.collect::<Result<Vec<_>, _>>().map(Val::from)
}

/// The longest range that is made. Its cost is only known afterwards, its memory is needed before.
const LONGEST_RANGE: i64 = 10_000_000;

fn range<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let Val::Int(count) = args[0] else { return Err(NO_OVERLOAD) };
    if count > LONGEST_RANGE {
        return Err(Error::CostLimit);
    }
    Ok(Val::from((0..count).map(Val::Int).collect::<Vec<_>>()))
}

fn reverse<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let mut values = values(list(args)?)?;
    values.reverse();
    Ok(Val::from(values))
}

fn distinct<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let list = list(args)?;
    if let Some(positions) = list.strings() {
        // Of strings, the last position of each is known; the first is where it is met.
        let mut seen = std::collections::HashSet::with_capacity(positions.len());
        let kept = values(list)?
            .into_iter()
            .filter(|item| item.as_str().is_some_and(|text| seen.insert(text.to_owned())));
        return Ok(Val::from(kept.collect::<Vec<_>>()));
    }
    let mut kept: Vec<Val<'a>> = Vec::new();
    for item in list.iter() {
        let item = item?;
        if !kept.iter().any(|known| ops::equal(&item, known).unwrap_or(false)) {
            kept.push(item);
        }
    }
    Ok(Val::from(kept))
}

fn flatten<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let depth = match args.get(1) {
        Some(Val::Int(depth)) => *depth,
        Some(_) => return Err(NO_OVERLOAD),
        None => 1,
    };
    if depth < 0 {
        return Err(failed("level must be non-negative"));
    }
    let mut flat = Vec::new();
    flatten_into(list(args)?, depth, &mut flat)?;
    Ok(Val::from(flat))
}

fn flatten_into<'a>(list: &List<'a>, depth: i64, flat: &mut Vec<Val<'a>>) -> Result<(), Error> {
    for item in list.iter() {
        match item? {
            Val::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, flat)?,
            other => flat.push(other),
        }
    }
    Ok(())
}

fn sorted<'a>(values: Vec<Val<'a>>, keys: &[Val<'a>]) -> Evaluated<'a> {
    if values.len() != keys.len() {
        return Err(failed_with(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            values.len(),
            keys.len()
        )));
    }
    let Some(first) = keys.first() else { return Ok(Val::from(values)) };
    if !ops::is_comparable(first) {
        return Err(failed("list elements must be comparable"));
    }
    if keys.iter().any(|key| key.kind() != first.kind()) {
        return Err(failed("list elements must have the same type"));
    }
    let mut indices: Vec<usize> = (0..values.len()).collect();
    indices.sort_by(|one, other| order(&keys[*one], &keys[*other]).unwrap_or(Ordering::Equal));
    Ok(Val::from(indices.into_iter().map(|at| values[at].clone()).collect::<Vec<_>>()))
}

fn sort<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let keys = values(list(args)?)?;
    sorted(keys.clone(), &keys)
}

fn sort_by<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (list, Val::List(keys)) = (list(args)?, &args[1]) else { return Err(NO_OVERLOAD) };
    sorted(values(list)?, &values(keys)?)
}
