//! The functions that expressions may call.

use crate::decls::{Binding, Functions, add};

/// `authorizer`: what may who.
pub mod authz;
/// `string.format`
pub(crate) mod format;
/// `format.dns1123Label()` and its kin.
pub mod formats;
/// `jsonpatch.escapeKey`
pub(crate) mod jsonpatch;
/// `isSorted`, `sort`, `flatten` and the like.
pub(crate) mod lists;
/// Addresses and networks.
pub mod net;
/// `optional.of` and what can be done with it.
pub(crate) mod optionals;
/// `quantity`
pub(crate) mod quantity;
/// `find` and `findAll`
pub(crate) mod regex;
/// `semver`
pub mod semver;
/// `sets.contains` and its kin.
pub(crate) mod sets;
/// CEL's own.
pub(crate) mod standard;
/// `charAt`, `split` and the like.
pub(crate) mod strings;
/// `url`
pub mod url;

/// Everything that every expression may call.
pub(crate) fn add_all(functions: &mut Functions) {
    add(functions, standard::OPERATORS, Binding::Unguarded);
    add(functions, standard::UNGUARDED, Binding::Unguarded);
    add(functions, standard::ROWS, Binding::Guarded);
    add(functions, optionals::ROWS, Binding::Guarded);
    for rows in [
        url::ROWS,
        regex::ROWS,
        lists::KUBERNETES,
        authz::ROWS,
        quantity::ROWS,
        strings::ROWS,
        sets::ROWS,
        net::ROWS,
        formats::ROWS,
        semver::ROWS,
        lists::ROWS,
    ] {
        add(functions, rows, Binding::Guarded);
    }
    add(functions, lists::UNGUARDED, Binding::Unguarded);
}
