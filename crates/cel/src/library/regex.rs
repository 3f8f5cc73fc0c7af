//! Finding by pattern.

use crate::decls::Row;
use crate::re2::{self, Regex};
use crate::value::{Evaluated, NO_OVERLOAD, Val, failed_with};

pub(crate) const ROWS: &[Row] = &[
    Row("find", "string_find_string", "string.(string): string", find),
    Row("findAll", "string_find_all_string", "string.(string): list(string)", find_all),
    Row("findAll", "string_find_all_string_int", "string.(string, int): list(string)", find_all),
];

fn compiled(args: &[Val<'_>]) -> Result<Regex, crate::value::Error> {
    let pattern = args[1].as_str().ok_or(NO_OVERLOAD)?;
    re2::compile(pattern).map_err(|wrong| failed_with(format!("Illegal regex: {wrong}")))
}

fn find<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    found(&compiled(args)?, args)
}

fn find_all<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    all_found(&compiled(args)?, args)
}

/// The first match, or an empty string.
pub(crate) fn found<'a>(regex: &Regex, args: &[Val<'a>]) -> Evaluated<'a> {
    let text = args[0].as_str().ok_or(NO_OVERLOAD)?;
    Ok(Val::from(regex.find(text).map_or("", |found| found.as_str()).to_owned()))
}

/// All matches, or the first so many.
pub(crate) fn all_found<'a>(regex: &Regex, args: &[Val<'a>]) -> Evaluated<'a> {
    let text = args[0].as_str().ok_or(NO_OVERLOAD)?;
    let most = match args.get(2) {
        Some(Val::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
        Some(_) => return Err(NO_OVERLOAD),
        None => usize::MAX,
    };
    let found = regex.find_iter(text).take(most);
    Ok(Val::from(found.map(|found| Val::from(found.as_str().to_owned())).collect::<Vec<_>>()))
}
