//! Lists as sets.

use crate::decls::Row;
use crate::value::{Error, Evaluated, List, NO_OVERLOAD, Val};

pub(crate) const ROWS: &[Row] = &[
    Row("sets.contains", "list_sets_contains_list", "(list(T), list(T)): bool", contains),
    Row("sets.equivalent", "list_sets_equivalent_list", "(list(T), list(T)): bool", equivalent),
    Row("sets.intersects", "list_sets_intersects_list", "(list(T), list(T)): bool", intersects),
];

fn lists<'v, 'a>(args: &'v [Val<'a>]) -> Result<(&'v List<'a>, &'v List<'a>), Error> {
    match args {
        [Val::List(one), Val::List(other)] => Ok((one, other)),
        _ => Err(NO_OVERLOAD),
    }
}

fn holds<'a>(list: &List<'a>, part: &List<'a>) -> Result<bool, Error> {
    for item in part.iter() {
        if !list.contains(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (list, part) = lists(args)?;
    holds(list, part).map(Val::Bool)
}

fn equivalent<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (one, other) = lists(args)?;
    Ok(Val::Bool(holds(one, other)? && holds(other, one)?))
}

fn intersects<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (one, other) = lists(args)?;
    for item in one.iter() {
        // An element that cannot be compared is in no list.
        if other.contains(&item?).unwrap_or(false) {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}
