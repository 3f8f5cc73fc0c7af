//! Keys for the paths of JSON patches.

use crate::decls::Row;
use crate::value::{Evaluated, NO_OVERLOAD, Val};

pub(crate) const ROWS: &[Row] =
    &[Row("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", "(string): string", escape_key)];

fn escape_key<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let key = args[0].as_str().ok_or(NO_OVERLOAD)?;
    Ok(Val::from(key.replace('~', "~0").replace('/', "~1")))
}
